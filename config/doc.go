// Package config holds what an operator may set: one flat struct per process, [Broker] and [NameServer].
//
// A field's tag names RocketMQ's property, and the tags together are the one table behind everything else:
//
//	prop     the property name, RocketMQ's where RocketMQ has the property
//	default  the value without configuration, in the text form of the properties file
//	unit     what a number counts: ms, s, bytes, hours, percent
//	min,max  the inclusive range of a number
//	oneof    the accepted words, separated by "|"
//	check    a named check of the text, see valueChecks
//	hot      "1": an update-config request may change it while the process runs
//	secret   "1": never printed, neither by -p nor in the answer to a get-config request
//
// A value comes from the first of these that gives one:
//
//	flag          --flushDiskType=SYNC_FLUSH
//	environment   RINGMQ_FLUSH_DISK_TYPE=SYNC_FLUSH
//	file          -c broker.conf, Java's properties syntax
//	default       the tag
//
// namesrvAddr has one more source below the file: RocketMQ's own variable NAMESRV_ADDR. So have the tls.* keys: the
// properties file that tls.config.file names.
//
// [Live] owns the values of a running process: an immutable snapshot behind an atomic pointer. Readers take the
// pointer and never see half a change; a change copies the snapshot, alters the copy and swaps the pointer.
// Only processes read this package. Rooms below them are given a small Options struct.
package config
