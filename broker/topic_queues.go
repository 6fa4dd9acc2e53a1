package broker

// topicQueues is what a Topic carries for the hot path.
type topicQueues struct{}
