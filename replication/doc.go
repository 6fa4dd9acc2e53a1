// Package replication will hold what keeps copies of a broker's log: the byte stream from master to slaves that Java
// slaves understand, epochs, the set of replicas in sync, and below it, in replication/raft, the controller that
// elects masters, as a core without goroutines, clock or socket.
//
// Nothing is here yet, and the configuration refuses the settings that would need it (config, checkRole): a broker never
// acknowledges a copy that nobody made.
package replication
