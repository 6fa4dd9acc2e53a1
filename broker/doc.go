// Package broker answers the requests of clients and tools: it checks what they ask, stores and finds messages through package store, and
// keeps the broker's tables (topics, groups, offsets, clients).
//
// Who does what:
//
//	reactors     one handler each (handler.go). They run the requests that never wait: sends, pulls, offsets. What a turn appended is
//	             dispatched, and what was waiting for it released, at the end of that turn, before the turn's one write.
//	lanes        goroutines for what may wait: cold reads, topics and groups (they are saved to disk), queries, tools.
//	goroutines   registration with name servers, delayed delivery, expiry of clients, saving of offsets.
//
// One table (dispatch.go) says for each request code which of these runs it, and what access control will ask for.
package broker
