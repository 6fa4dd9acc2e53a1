// Package netpath is the room of the sockets: it accepts connections, cuts the frames they send, hands each to a
// Handler, and writes what the handler answers.
//
// # Who owns what
//
//	Server    listeners; the census of connections; the budget of memory          any goroutine
//	Reactor   a share of the connections, read buffer, free buffers, counters     its own thread
//	Conn      input not handled yet, output not written yet                       its reactor's thread
//	Handler   whatever the room above keeps for each reactor                      its reactor's thread
//
// Other goroutines reach a connection by Conn.Send and Conn.Close, and a reactor by Reactor.Post and Reactor.Wake. They
// put a letter into the reactor's mail; the reactor is interrupted only if it sleeps.
//
// # Bytes
//
// A read takes what is there into the reactor's scratch buffer. Frames are cut in place and handled at once; only the
// beginning of a frame whose end has not come is copied into a buffer of the connection, which grows with the bytes that
// arrive, never with those that are announced, and is given back as soon as the frame is handled. An idle connection
// therefore holds a few hundred bytes.
//
//	scratch   | frame | frame | frame | fra      in      | me |            one readv: the rest of the frame into
//	            OnFrame OnFrame OnFrame  copied → | fra  ... ← direct |    in, whatever is behind it into scratch
//
// Answers are appended to an output buffer (Conn.Begin, Conn.End), file ranges are queued behind them (Conn.SendFile). At
// the end of the turn each connection's output leaves, with one write as far as no file range lies between.
//
//	output    | bytes | → | file range | → | bytes | → ...      MSG_MORE joins bytes and the range behind them
//
// # Native connections and streams
//
// On Linux plain connections are native: non-blocking sockets in the reactor's epoll set, or with PollerUring served by its ring. TLS connections, and all
// connections where there is no epoll or Options.Portable is set, are streams: a goroutine reads and cuts, another writes,
// and the frames between them are handled on the reactor's thread. Handlers cannot tell the two apart.
//
//	native files     reactor_linux.go sendfile_linux.go cold_linux.go, ring_linux.go for io_uring; reactor_other.go says on other systems
//	                 that there are none
//	stream files     conn_stream.go sendfile_portable.go pread_unix.go pread_windows.go, and reactor_portable.go to wait
//	                 without a poller
//	shared           reactor.go balance.go drain.go conn.go frame.go sniff.go limits.go buffers.go stats.go server.go
//	for the rooms    lane.go: goroutines for requests that may wait; tls.go, tls_ends.go: certificates and settings of
//	above            both ends, from the tls.* keys
//
// # Which reactor
//
// Reactor 0 accepts, and hands each connection to the reactor with the fewest. A native connection may move later, from a busy
// reactor to an idle one, while it has nothing in flight and its Handler, a Mover, agrees: balance.go.
//
// # When something is full
//
// A connection is not read while its output backlog is above 1 MiB, and is closed above Limits.MaxBacklog. Unfinished
// frames, silent and idle connections have deadlines. Above Limits.MaxInFlightBytes only one connection at a time may
// take more memory. Post returns false beyond 65,536 waiting functions.
package netpath
