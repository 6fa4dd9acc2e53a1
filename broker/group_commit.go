package broker

import "time"

// groupCommit decides when a group commit begins. Those who were answered a moment ago come again, one after the other: a commit for the first of them
// would leave the others to the next ones, and eight clients would have three or four commits on their way all the time, each for two of them, where
// one for all costs the device hardly more than each of these. So a commit waits for the one that is on its way, unless that takes longer than usual, and
// then for those who were answered, as long as they may be coming: a part of what a commit takes. Who comes alone does not wait.
type groupCommit struct {
	company int   // how many were not answered yet at a time, lately
	peak    int   // the same, since the last commit began
	last    int64 // the latest answers, ns, monotonic
	began   int64 // the first commit since then; 0: there was none
	took    int64 // by a commit, until its answers, lately, ns
}

// maxGather is the longest wait for company, maxHold for the commit before, ns.
const (
	maxGather = int64(200 * time.Microsecond)
	maxHold   = int64(time.Millisecond)
)

// wait is how long a commit has to wait, when so many are not answered yet, ns; 0 or less: not at all. It is asked in each turn.
func (g *groupCommit) wait(waiting int, now int64) int64 {
	g.peak = max(g.peak, waiting)
	switch {
	case g.began != 0:
		return g.began + min(g.took*3/2, maxHold) - now
	case waiting >= g.company:
		return 0
	}
	return g.last + min(g.took*3/4, maxGather) - now
}

func (g *groupCommit) begin(now int64) {
	g.company, g.peak = max(g.peak, g.company-(g.company+7)/8), 0
	if g.began == 0 {
		g.began = now
	}
}

// answered notes that a commit is done and its answers leave.
func (g *groupCommit) answered(now int64) {
	g.last = now
	if g.began != 0 {
		g.took += (now - g.began - g.took) / 8
		g.began = 0
	}
}
