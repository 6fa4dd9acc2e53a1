package uring

// Features is what the kernel has of io_uring, tried out one by one.
type Features struct {
	SingleIssuer, DeferTaskrun      bool // linux 6.0, 6.1
	ReadWrite, Fsync, SyncFileRange bool
	RegisteredBuffers               bool
	RegisteredFiles                 bool
	BufferRing                      bool // 5.19
	MultishotAccept                 bool // 5.19
	MultishotRecv                   bool // 6.0
	SendZC                          bool // 6.0
}

// Feature is one line of a report.
type Feature struct {
	Name  string
	Since string // the kernel that brought it
	Has   bool
}

// List is the features in the order of a report.
func (f Features) List() []Feature {
	return []Feature{
		{"read and write", "5.6", f.ReadWrite}, {"fsync", "5.1", f.Fsync}, {"sync_file_range", "5.2", f.SyncFileRange},
		{"registered buffers", "5.1", f.RegisteredBuffers}, {"registered files", "5.1", f.RegisteredFiles},
		{"buffer rings", "5.19", f.BufferRing}, {"multishot accept", "5.19", f.MultishotAccept}, {"multishot receive", "6.0", f.MultishotRecv},
		{"single issuer", "6.0", f.SingleIssuer}, {"deferred task work", "6.1", f.DeferTaskrun}, {"zero-copy send", "6.0", f.SendZC},
	}
}
