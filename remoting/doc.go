// Package remoting holds the bytes of RocketMQ's 4.x protocol: the command, its two header serialisations, the request and
// response codes, the headers of the hot requests and the JSON bodies. It opens no sockets.
//
//	frame:  u32 length | u32 mark | header | body          length does not count itself; netpath cuts it off
//	mark:   high byte = serialisation of the header (0 JSON, 1 ROCKETMQ), low 24 bits = length of the header
//
//	ROCKETMQ header: i16 code | i8 language | i16 version | i32 opaque | i32 flag | i32 n, remark | i32 n, ext
//	           ext:  i16 n, key | i32 n, value | ...
//
// Reading a command takes no memory: fields are views into the frame, valid as long as the frame is (until the handler returns).
// Does the work of RemotingCommand, RocketMQSerializable, RemotingSerializable.
package remoting
