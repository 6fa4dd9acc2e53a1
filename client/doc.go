// Package client is our own small remoting client: one connection with pipelined requests, and the route look-ups that go with
// it. The broker registers with name servers through it, the load generator and the tests speak to any RocketMQ-compatible
// server through it. It is no SDK: no retries, no rebalancing, no background threads but the connection's reader.
//
//	Conn         one connection. Many requests may be in flight; answers are matched by opaque in a preallocated table
//	             (inflight.go). Who notices that a connection is dead (Done, Err) dials again: reconnecting is the caller's.
//	NameServers  routes and cluster, from the first name server that answers; routes are cached.
//
// A frame belongs to the reader until the callback that got it returns; Invoke copies what it hands out.
package client
