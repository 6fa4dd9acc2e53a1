//go:build race

package broker

import "time"

// mostStart is what the promise of rule R6, 2 s, is with the race detector: it looks at every byte that a start reads, several times over.
const mostStart = 8 * time.Second
