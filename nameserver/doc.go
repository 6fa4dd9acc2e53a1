// Package nameserver keeps the routes: which brokers are alive and which topics they have. Brokers tell it, clients and tools ask it.
// It serves the brokers and clients of RocketMQ 4.x and 5.x as well as our own. Does the work of RocketMQ's namesrv.
//
//	dispatch.go         request code → handler, lane, access rule: one table
//	broker_request.go   what brokers say and ask, and what tools change about them
//	route_request.go    what clients and tools ask about routes and topics
//	config_request.go   what tools ask and change of the key-value configuration and the settings
//	server.go           sockets, lanes, the watch over silent brokers
//	tls.go              TLS of the listener and of the notices
//	routes.go           the tables and how a route is put together
//	register.go         registration and removal of brokers and topics
//	liveness.go         which connection keeps which broker in the tables, and until when
//	notify.go           tells brokers that the smallest id of their group has changed
//	kv_config.go        the key-value configuration, on disk (run-time changes of the settings are, too: config)
//
// It is stateless: after a start it knows nothing but the key-value configuration, and brokers fill it within their registration period.
// Name servers do not know of each other; each broker registers with all of them.
//
// Who owns what: the tables belong to routes, behind one read-write lock that is never held across a socket or a disk. Route questions are
// answered on the reactor from encoded answers that are kept until something changes. Changes run one after the other on one goroutine
// (the ordered lane), so that a broker's registration and its removal take effect in the order they came.
package nameserver
