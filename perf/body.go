package perf

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
)

const (
	bodyMagic  uint32 = 'R'<<24 | 'P'<<16 | 'F'<<8 | '1'
	bodyHeader        = 48
)

// stamp is what the body of one message says.
type stamp struct {
	generator uint64
	stream    uint32
	queue     uint32
	sequence  uint64
	settled   uint64
	time      int64 // ns since 1970
}

// put writes the stamp and the checksum into body, whose filler is in place.
func (s *stamp) put(body []byte) {
	be := binary.BigEndian
	be.PutUint32(body, bodyMagic)
	be.PutUint64(body[8:], s.generator)
	be.PutUint32(body[16:], s.stream)
	be.PutUint32(body[20:], s.queue)
	be.PutUint64(body[24:], s.sequence)
	be.PutUint64(body[32:], s.settled)
	be.PutUint64(body[40:], uint64(s.time))
	be.PutUint32(body[4:], crc32.ChecksumIEEE(body[8:]))
}

// What readStamp finds.
type bodyState int

const (
	bodyIntact bodyState = iota
	bodyForeign
	bodyCorrupt
)

// readStamp reads a body. A body that never was ours is foreign; one that was and has changed is corrupt.
func (s *stamp) read(body []byte) bodyState {
	be := binary.BigEndian
	if len(body) < bodyHeader || be.Uint32(body) != bodyMagic {
		return bodyForeign
	}
	if be.Uint32(body[4:]) != crc32.ChecksumIEEE(body[8:]) {
		return bodyCorrupt
	}
	s.generator = be.Uint64(body[8:])
	s.stream = be.Uint32(body[16:])
	s.queue = be.Uint32(body[20:])
	s.sequence = be.Uint64(body[24:])
	s.settled = be.Uint64(body[32:])
	s.time = int64(be.Uint64(body[40:]))
	return bodyIntact
}

// filler is what a body holds behind its stamp: text-like, not to be compressed to nothing.
func filler(size int) []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, size)
	for i := range b {
		b[i] = letters[random.IntN(len(letters))]
	}
	return b
}
