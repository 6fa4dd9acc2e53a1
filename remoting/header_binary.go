package remoting

import "encoding/binary"

// The ROCKETMQ header (RocketMQSerializable).

// popCodes is where request codes above 16 bits start; a binary header cuts them off. The codes that result collide with no other.
const popCodes = 200000

var errBinaryHeader = &HeaderError{"a length in the binary header goes past its end"}

func (c *Command) decodeBinary(h []byte) error {
	be := binary.BigEndian
	if len(h) < 21 {
		return errBinaryHeader
	}
	c.Code = widenCode(be.Uint16(h))
	c.Language = h[2]
	c.Version = int32(int16(be.Uint16(h[3:])))
	c.Opaque = int32(be.Uint32(h[5:]))
	c.Flag = int32(be.Uint32(h[9:]))
	remarkLen := int64(int32(be.Uint32(h[13:])))
	h = h[17:]
	if remarkLen < 0 || remarkLen > int64(len(h)-4) {
		return errBinaryHeader
	}
	c.Remark, h = h[:remarkLen], h[remarkLen:]
	extLen := int64(int32(be.Uint32(h)))
	h = h[4:]
	if extLen < 0 || extLen > int64(len(h)) {
		return errBinaryHeader
	}
	return c.decodeExt(h[:extLen])
}

func (c *Command) decodeExt(h []byte) error {
	const lengths = 2 + 4 // of a field's key and of its value
	be, fields := binary.BigEndian, c.Fields
	for len(h) > 0 {
		if len(h) < lengths {
			return errBinaryHeader
		}
		keyLen := int(int16(be.Uint16(h)))
		if keyLen < 0 || keyLen > len(h)-lengths {
			return errBinaryHeader
		}
		key := h[2 : 2+keyLen]
		h = h[2+keyLen:]
		valueLen := int64(int32(be.Uint32(h)))
		h = h[4:]
		if valueLen < 0 || valueLen > int64(len(h)) {
			return errBinaryHeader
		}
		if len(fields) == maxFields {
			return errTooManyFields
		}
		fields = append(fields, Field{key, h[:valueLen]})
		h = h[valueLen:]
	}
	c.Fields = fields
	return nil
}

// widenCode gives the codes 200050..200079 and 200151 back the bits that a 16-bit field lost.
func widenCode(low uint16) int32 {
	code := int32(int16(low))
	if low < popCodes&0xFFFF {
		return code // all that is not POP's: without the two looks into the table
	}
	if wide := popCodes&^0xFFFF | int32(low); RequestName(wide) != "" && RequestName(code) == "" {
		return wide
	}
	return code
}
