// Package message holds the bytes of one stored message: the CommitLog record, its properties, message ids and the
// names that RocketMQ gives to topics and groups. It knows nothing of files or sockets.
//
// The record on disk is the record on the wire: a pull answers with it unchanged.
//
//	| at      | bytes  | field                                                                      |
//	|---------|--------|----------------------------------------------------------------------------|
//	| 0       | 4      | totalSize, the whole record                                                |
//	| 4       | 4      | magic: 0xDAA320A7 (topic length 1 byte), 0xDAA320AB (2), 0xCBD43194 (blank)|
//	| 8       | 4      | bodyCRC: CRC-32 (IEEE) of the body, top bit cleared                        |
//	| 12      | 4      | queueId                                                                    |
//	| 16      | 4      | flag, the user's                                                           |
//	| 20      | 8      | queueOffset                                                                |
//	| 28      | 8      | physicalOffset, where the record starts in the log                         |
//	| 36      | 4      | sysFlag                                                                    |
//	| 40      | 8      | bornTimestamp, ms                                                          |
//	| 48      | 8 / 20 | bornHost: address 4 (16 when sysFlag has BornHostV6), port 4               |
//	| 56 / 68 | 8      | storeTimestamp, ms                                                         |
//	| ..      | 8 / 20 | storeHost, 20 when sysFlag has StoreHostV6                                 |
//	| ..      | 4      | reconsumeTimes                                                             |
//	| ..      | 8      | preparedTransactionOffset                                                  |
//	| ..      | 4 + n  | body                                                                       |
//	| ..      | 1|2 + n| topic                                                                      |
//	| ..      | 2 + n  | properties, `name 0x01 value 0x02` repeated                                |
//
// All integers are big-endian. Does the work of MessageDecoder, MessageExtEncoder, MessageSysFlag, MessageConst.
package message
