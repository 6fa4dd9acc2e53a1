// Package nameserver keeps the routes: which brokers are alive and which topics they have. Brokers tell it, clients and tools ask it.
// It serves the brokers and clients of RocketMQ 4.x and 5.x as well as our own. Does the work of RocketMQ's namesrv.
//
//	dispatch.go    request code → handler, lane, access rule: one table
//	server.go      sockets, lanes, the watch over silent brokers
//	routes.go      the tables and how a route is put together
//	register.go    registration and removal of brokers and topics
//	liveness.go    which connection keeps which broker in the tables, and until when
//	kv_config.go   the key-value configuration: the only thing on disk
//
// It is stateless: after a start it knows nothing but the key-value configuration, and brokers fill it within their registration period.
// Name servers do not know of each other; each broker registers with all of them.
//
// Who owns what: the tables belong to routes, behind one read-write lock that is never held across a socket or a disk. Route questions are
// answered on the reactor from encoded answers that are kept until something changes. Changes run one after the other on one goroutine
// (the ordered lane), so that a broker's registration and its removal take effect in the order they came.
package nameserver
