package broker

import (
	"fmt"
	"math"
	"strconv"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
)

// runtimeInfo handles GET_BROKER_RUNTIME_INFO: the figures of brokerStatus, clusterList and the dashboard, under Java's names. Tools cut
// the texts at blanks, so their form is fixed; none may be missing, because clusterList fails over the first that is.
func runtimeInfo(r *request) *answer {
	b := r.b
	table := map[string]string{}
	b.storeStats.addTo(table, b.nowMillis())
	b.addState(table)
	b.addLog(table)
	b.addDisk(table)
	b.addSchedule(table)
	b.addLanes(table)
	return withBody(remoting.KVTable{Table: table})
}

// putInts writes numbers under their names.
func putInts(table map[string]string, numbers map[string]int64) {
	for name, n := range numbers {
		table[name] = strconv.FormatInt(n, 10)
	}
}

func (b *Broker) addState(table map[string]string) {
	table["brokerVersionDesc"] = versionName
	table["ioEngine"] = b.engineName()
	table["brokerActive"] = strconv.FormatBool(b.store.Writable() == nil)
	earliest, err := b.store.EarliestStoreTime()
	if err != nil {
		b.log.Warn("the store time of the log's first message is unknown", "err", err)
	}
	putInts(table, map[string]int64{
		"earliestMessageTimeStamp":        earliest,
		"startAcceptSendRequestTimeStamp": b.acceptFrom.Load(),
	})
	// The timer wheel comes with a later version; these are what the original says without one.
	for _, name := range []string{"timerReadBehind", "timerOffsetBehind", "timerCongestNum"} {
		table[name] = "0"
	}
	table["timerEnqueueTps"], table["timerDequeueTps"] = "0.0", "0.0"
}

// versionName is the version that this broker speaks (MQVersion), in words.
const versionName = "V5_5_0"

func (b *Broker) addLog(table map[string]string) {
	log := b.store.Log()
	dispatched, flushed := b.store.Dispatched(), log.Flushed()
	end := log.Published()
	putInts(table, map[string]int64{
		"commitLogMinOffset":  log.MinOffset(),
		"commitLogMaxOffset":  end,
		"dispatchBehindBytes": end - dispatched,
		// Dispatching has no queue of its own here, the log's lock is never held across a write, and there is no transient
		// pool: the original says the largest int for a pool that is switched off.
		"dispatchMaxBuffer":               0,
		"pageCacheLockTimeMills":          0,
		"remainTransientStoreBufferNumbs": math.MaxInt32,
	})
	table["remainHowManyDataToFlush"] = byteText(end - flushed)
}

func (b *Broker) addDisk(table map[string]string) {
	c := b.cfg.Load()
	logRatio := b.diskRatio(c.StorePathCommitLog)
	table["commitLogDiskRatio_"+c.StorePathCommitLog] = logRatio
	table["commitLogDiskRatio"] = logRatio
	table["consumeQueueDiskRatio"] = b.diskRatio(c.StorePathRootDir)
	if free, total, err := b.fsys.Usage(c.StorePathRootDir); err == nil {
		table["commitLogDirCapacity"] = fmt.Sprintf("Total : %s, Free : %s.", byteText(total), byteText(free))
	}
}

// diskRatio is the used share of a file system, -1.0 when it is unknown.
func (b *Broker) diskRatio(dir string) string {
	free, total, err := b.fsys.Usage(dir)
	if err != nil || total <= 0 {
		return "-1.0"
	}
	return doubleText(1 - float64(free)/float64(total))
}

// addSchedule tells of each delay level how far it is and where its queue ends.
func (b *Broker) addSchedule(table map[string]string) {
	for level, at := range b.schedule.offsets().OffsetTable {
		end := int64(0)
		if q := b.store.Queue([]byte(message.ScheduleTopic), level-1); q != nil {
			end = q.Max()
		}
		table[fmt.Sprintf("scheduleMessageOffset_%d", level)] = fmt.Sprintf("%d,%d", at, end)
	}
}

// addLanes tells of the requests that wait for a goroutine. Most never do: reactors run them as they come. Sends wait only while the log
// is not ready, pulls and queries only for the disk.
func (b *Broker) addLanes(table map[string]string) {
	cold := b.lanes[laneCold]
	for name, l := range map[string]struct {
		lane   *netpath.Lane
		places int64
	}{
		"send": {b.putLane, putPlaces}, "pull": {cold, coldPlaces}, "litePull": {cold, coldPlaces}, "query": {cold, coldPlaces}, "ack": {nil, 0},
	} {
		waiting := int64(0)
		if l.lane != nil {
			waiting = int64(l.lane.Waiting())
		}
		putInts(table, map[string]int64{
			name + "ThreadPoolQueueSize": waiting, name + "ThreadPoolQueueCapacity": l.places, name + "ThreadPoolQueueHeadWaitTimeMills": 0,
		})
	}
	putInts(table, map[string]int64{"EndTransactionQueueSize": 0, "EndTransactionThreadPoolQueueCapacity": 0})
}

// byteText is a size in the original's words (humanReadableByteCount): "512 B", "1.5 GiB".
func byteText(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	size, unit := float64(n)/1024, 0
	for ; size >= 1024 && unit < len(byteUnits)-1; unit++ {
		size /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", size, byteUnits[unit])
}

const byteUnits = "KMGTPE"

// statsData handles VIEW_BROKER_STATS_DATA: one statistic over the last minute, hour and day.
func statsData(r *request) *answer {
	name, key := r.cmd.String("statsName"), r.cmd.String("statsKey")
	data, ok := r.b.stats.view(name, key)
	if !ok {
		return refused(remoting.RespSystemError, "The stats <%s> <%s> not exist", name, key)
	}
	return withBody(data)
}

// haStatus handles GET_BROKER_HA_STATUS. This broker is a master without slaves: replication comes with a later version.
func haStatus(r *request) *answer {
	return withBody(remoting.HARuntimeInfo{Master: true, MasterCommitLogMaxOffset: r.b.store.Log().Published()})
}

// epochCache handles GET_BROKER_EPOCH_CACHE: there is one only in controller mode, which this version does not have.
func epochCache(*request) *answer {
	return refused(remoting.RespSystemError, "this request only for controllerMode ")
}
