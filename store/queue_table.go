package store

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/ioengine"
)

// maxFileUnits keeps a file below 2 GiB, as the original's mapping does.
const maxFileUnits = math.MaxInt32 / UnitSize

// Defaults of QueueTableOptions.MaxUnwritten and MaxHeld.
const (
	defaultUnwritten = 64 << 20
	defaultHeld      = 32 << 20
)

// MaxQueueID is the largest queue id a topic can have.
const MaxQueueID = 65535

// QueueTableOptions are the settings of a QueueTable; those marked "default" may be left out.
type QueueTableOptions struct {
	FS     ioengine.FS
	Root   string // the store's folder: the files lie in Root/consumequeue, the snapshot in Root/queues.snapshot
	Logger *slog.Logger
	// FileUnits is mappedFileSizeConsumeQueue / 20; default 300,000.
	FileUnits int
	// MaxOpenFiles bounds the descriptors held; default 1024. Files in use at the moment come on top.
	MaxOpenFiles int
	// MaxUnwritten bounds the bytes of entries that wait for WriteBack; past it Append writes itself. Default 64 MiB.
	MaxUnwritten int64
	// MaxHeld is how many bytes of entries are held in memory, written or not, before WriteBackDue writes what is not due and lets go;
	// default 32 MiB.
	MaxHeld int64
	// MaxPass bounds the time that a pass of WriteBackDue takes over what can wait; default 250 ms.
	MaxPass time.Duration
	// IdlePasses is after how many passes of WriteBack without a new entry a queue gives its memory back; default 64.
	IdlePasses int
	// MaxTopics bounds how many topics there can be; 0 = no bound.
	MaxTopics int
	// LogEnd tells where the CommitLog ends: no entry may point behind it. Nil = not checked.
	LogEnd func() int64
	// OnDamage is told, once until EndRewrite, of a queue with an entry that can't be true. It is called by readers
	// and must not block.
	OnDamage func(topic string, queueID int32, from int64)
}

// QueueTable holds all queues by topic and queue id. Does the work of ConsumeQueueStore.
type QueueTable struct {
	fs           ioengine.FS
	root, dir    string
	log          *slog.Logger
	fileUnits    int64
	maxUnwritten int64
	maxHeld      int64
	maxPass      time.Duration
	idlePasses   int
	maxTopics    int
	logEnd       func() int64
	onDamage     func(topic string, queueID int32, from int64)
	files        queueFiles

	// topics: readers load a shard's map and never lock; createMu is held to replace one.
	seed     maphash.Seed
	topics   [topicShards]atomic.Pointer[map[string]*topicQueues]
	createMu sync.Mutex
	count    int // topics there are; belongs to createMu
	// lookup has the same queues, for Get. A queue enters it first: whoever found it in topics may append to it at once, and the dispatcher must
	// know it by then, or it would drop the record. It leaves it last.
	lookup queueLookup

	// unwritten is the bytes of entries that are in no file yet. relieveAt is where Append writes them itself; it
	// moves up when that fails, so that not every message tries again.
	unwritten atomic.Int64
	relieveAt atomic.Int64
	// held is the bytes of the chunks of all tails. Invariant: unwritten <= held.
	held atomic.Int64

	// writeMu is held by whoever writes queue files, across I/O. It comes before every other lock here.
	writeMu sync.Mutex
	// activeMu guards the queues that have a tail, in no order, and the spare slice for the next pass.
	activeMu      sync.Mutex
	active, spare []*ConsumeQueue

	// dirtyMu guards the files written since the last Sync, and the queues of which a file was opened for that: its name and those of its folders
	// may not be durable.
	dirtyMu sync.Mutex
	dirty   map[fileKey]struct{}
	named   map[*ConsumeQueue]struct{}
	// syncMu is held to sync; it guards syncErr. volume is nil where there is none: then each file is synced by itself.
	syncMu  sync.Mutex
	volume  ioengine.Volume
	syncErr error

	// background runs removals and clearing until Close calls stop.
	background sync.WaitGroup
	ctx        context.Context
	stop       context.CancelFunc
	removed    atomic.Int64 // numbers the folders of deleted topics

	snapshotBytes atomic.Int64 // size of the latest snapshot
	snapshotMu    sync.Mutex
	// stamp is the checkpoint that the store has on disk as far as is known here; belongs to snapshotMu.
	stamp CheckpointFields
}

// topicShards keeps the copy that a new topic costs small with 100,000 of them.
const topicShards = 256

// topicQueues are the queues of one topic, ascending by id. The slice is replaced, never changed.
type topicQueues struct {
	name   string
	queues atomic.Pointer[[]*ConsumeQueue]
}

// NewQueueTable answers an empty table; LoadSnapshot or LoadScan fills it.
func NewQueueTable(o QueueTableOptions) (*QueueTable, error) {
	if o.FileUnits < 0 || o.FileUnits > maxFileUnits {
		return nil, fmt.Errorf("consume queue files of %d entries: set mappedFileSizeConsumeQueue to at most %d", o.FileUnits, maxFileUnits*UnitSize)
	}
	t := &QueueTable{
		fs: o.FS, root: o.Root, dir: filepath.Join(o.Root, "consumequeue"), log: o.Logger, fileUnits: int64(o.FileUnits), maxUnwritten: o.MaxUnwritten,
		maxHeld: o.MaxHeld, maxPass: o.MaxPass, idlePasses: o.IdlePasses, maxTopics: o.MaxTopics, logEnd: o.LogEnd, onDamage: o.OnDamage,
		seed: maphash.MakeSeed(), dirty: map[fileKey]struct{}{}, named: map[*ConsumeQueue]struct{}{},
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.fileUnits <= 0 {
		t.fileUnits = 300_000
	}
	if t.maxUnwritten <= 0 {
		t.maxUnwritten = defaultUnwritten
	}
	if t.maxHeld <= 0 {
		t.maxHeld = defaultHeld
	}
	if t.maxPass <= 0 {
		t.maxPass = 250 * time.Millisecond
	}
	if t.idlePasses <= 0 {
		t.idlePasses = 64
	}
	if t.logEnd == nil {
		t.logEnd = func() int64 { return math.MaxInt64 }
	}
	if o.MaxOpenFiles <= 0 {
		o.MaxOpenFiles = 1024
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.relieveAt.Store(t.maxUnwritten)
	t.files = queueFiles{table: t, limit: o.MaxOpenFiles, open: map[fileKey]*queueFile{}}
	for i := range t.topics {
		t.topics[i].Store(&map[string]*topicQueues{})
	}
	t.lookup.init(t.seed, 0)
	// Now, and not when it is needed: errors from before it was opened may be told to somebody else.
	if v, ok := t.fs.(volumes); ok {
		// The folder may be a mount of its own. Where it is not there yet, it will be made on the root's.
		volume, err := v.OpenVolume(t.dir)
		if isNotFound(err) {
			volume, err = v.OpenVolume(t.root)
		}
		if t.volume = volume; err != nil && !isNotFound(err) {
			t.volume = nil
			t.log.Info("consume queue files are synced one by one", "reason", err)
		}
	}
	return t, nil
}

// Get answers the queue, or nil when there is none. Nothing is allocated or locked.
func (t *QueueTable) Get(topic []byte, queueID int32) *ConsumeQueue {
	return t.lookup.get(topic, queueID)
}

// findQueue looks at index queueID first, where it stands unless ids below are missing.
func findQueue(queues []*ConsumeQueue, queueID int32) *ConsumeQueue {
	if queueID >= 0 && int(queueID) < len(queues) && queues[queueID].QueueID == queueID {
		return queues[queueID]
	}
	if at, ok := slices.BinarySearchFunc(queues, queueID, byQueueID); ok {
		return queues[at]
	}
	return nil
}

func byQueueID(q *ConsumeQueue, queueID int32) int { return int(q.QueueID) - int(queueID) }

// GetOrCreate answers the queue and adds it where there is none. Nothing is written for it before its first entry.
func (t *QueueTable) GetOrCreate(topic string, queueID int32) (*ConsumeQueue, error) {
	shard := &t.topics[maphash.String(t.seed, topic)%topicShards]
	if tq := (*shard.Load())[topic]; tq != nil {
		if q := findQueue(*tq.queues.Load(), queueID); q != nil {
			return q, nil
		}
	}
	if err := checkQueueName(topic, queueID); err != nil {
		return nil, err
	}
	t.createMu.Lock()
	defer t.createMu.Unlock()
	tq, err := t.topicLocked(shard, topic)
	if err != nil {
		return nil, err
	}
	return t.queueLocked(tq, queueID), nil
}

func (t *QueueTable) topicLocked(shard *atomic.Pointer[map[string]*topicQueues], topic string) (*topicQueues, error) {
	old := *shard.Load()
	if tq := old[topic]; tq != nil {
		return tq, nil
	}
	if t.maxTopics > 0 && t.count >= t.maxTopics {
		return nil, fmt.Errorf("create topic %s: there are %d topics already: delete some or raise the limit", topic, t.count)
	}
	tq := &topicQueues{name: strings.Clone(topic)}
	tq.queues.Store(new([]*ConsumeQueue))
	grown := make(map[string]*topicQueues, len(old)+1)
	for name, there := range old {
		grown[name] = there
	}
	grown[tq.name] = tq
	shard.Store(&grown)
	t.count++
	return tq, nil
}

func (t *QueueTable) queueLocked(tq *topicQueues, queueID int32) *ConsumeQueue {
	old := *tq.queues.Load()
	at, ok := slices.BinarySearchFunc(old, queueID, byQueueID)
	if ok {
		return old[at]
	}
	q := t.newQueue(tq.name, queueID)
	grown := make([]*ConsumeQueue, 0, len(old)+1)
	grown = append(append(append(grown, old[:at]...), q), old[at:]...)
	t.lookup.putLocked(q, t.All)
	tq.queues.Store(&grown)
	return q
}

func (t *QueueTable) newQueue(topic string, queueID int32) *ConsumeQueue {
	q := &ConsumeQueue{Topic: topic, QueueID: queueID, table: t}
	q.begin.Store(notBegun)
	q.lastPhys.Store(-1)
	q.minPhys.Store(-1)
	return q
}

// checkQueueName refuses what can't be a folder of its own below Dir.
func checkQueueName(topic string, queueID int32) error {
	if queueID < 0 || queueID > MaxQueueID {
		return fmt.Errorf("queue id %d of topic %q is outside [0, %d]", queueID, topic, MaxQueueID)
	}
	bad := func(c rune) bool { return c < ' ' || c == '/' || c == '\\' || c == 0x7F }
	if topic == "" || topic == "." || topic == ".." || len(topic) > 255 || strings.ContainsFunc(topic, bad) {
		return fmt.Errorf("topic name %q can't be a folder name", topic)
	}
	return nil
}

// All visits every queue, topics in no order. Queues made meanwhile may be missed.
func (t *QueueTable) All(visit func(q *ConsumeQueue)) {
	for i := range t.topics {
		for _, tq := range *t.topics[i].Load() {
			for _, q := range *tq.queues.Load() {
				visit(q)
			}
		}
	}
}

// Queues lists a topic's queues, ascending by id. Read only.
func (t *QueueTable) Queues(topic []byte) []*ConsumeQueue {
	shard := *t.topics[maphash.Bytes(t.seed, topic)%topicShards].Load()
	if tq := shard[string(topic)]; tq != nil {
		return *tq.queues.Load()
	}
	return nil
}

// Delete takes a topic's queues away. Its folder leaves Dir at once and is removed in the background, so that the topic
// can be created anew. A snapshot written before still names the topic: write the next one soon.
func (t *QueueTable) Delete(topic string) error {
	if err := checkQueueName(topic, 0); err != nil {
		return err
	}
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	t.takeOut(topic)
	t.forgetFiles(func(q *ConsumeQueue) bool { return q.Topic == topic })
	return t.moveAway(filepath.Join(t.dir, topic))
}

// renew puts an empty queue in the place of q, as a deletion and a new message would have. A start calls it, before anybody reads.
func (t *QueueTable) renew(q *ConsumeQueue) (*ConsumeQueue, error) {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	t.forgetFiles(func(other *ConsumeQueue) bool { return other == q })
	if err := t.moveAway(q.dir()); err != nil {
		return nil, err
	}
	t.createMu.Lock()
	defer t.createMu.Unlock()
	tq := (*t.topics[maphash.String(t.seed, q.Topic)%topicShards].Load())[q.Topic]
	fresh := t.newQueue(q.Topic, q.QueueID)
	queues := slices.Clone(*tq.queues.Load())
	queues[slices.Index(queues, q)] = fresh
	q.state.Or(queueDeleted)
	t.lookup.putLocked(fresh, t.All)
	tq.queues.Store(&queues)
	t.log.Info("consume queue began anew: its topic was deleted and made again before the last run ended", "topic", q.Topic, "queueId", q.QueueID)
	return fresh, nil
}

func (t *QueueTable) forgetFiles(of func(q *ConsumeQueue) bool) {
	t.files.forget(func(key fileKey) bool { return of(key.q) })
	t.dirtyMu.Lock()
	defer t.dirtyMu.Unlock()
	for key := range t.dirty {
		if of(key.q) {
			delete(t.dirty, key)
		}
	}
}

func (t *QueueTable) takeOut(topic string) {
	t.createMu.Lock()
	defer t.createMu.Unlock()
	shard := &t.topics[maphash.String(t.seed, topic)%topicShards]
	old := *shard.Load()
	tq := old[topic]
	if tq == nil {
		return
	}
	rest := make(map[string]*topicQueues, len(old))
	for name, there := range old {
		if name != topic {
			rest[name] = there
		}
	}
	shard.Store(&rest)
	t.count--
	for _, q := range *tq.queues.Load() {
		q.state.Or(queueDeleted)
		t.lookup.removeLocked(q)
	}
}

// trash is where folders of deleted topics wait for their removal: beside Dir, where no broker looks for topics.
func (t *QueueTable) trash() string { return t.dir + ".deleted" }

func (t *QueueTable) moveAway(dir string) error {
	if _, err := t.fs.Stat(dir); err != nil {
		if isNotFound(err) {
			return nil
		}
		return err
	}
	if err := t.fs.MkdirAll(t.trash(), 0o755); err != nil {
		return err
	}
	to := filepath.Join(t.trash(), strconv.FormatInt(t.removed.Add(1), 10))
	// A leftover of an earlier run may have the same number.
	if err := t.fs.RemoveAll(to); err != nil {
		return err
	}
	if err := t.fs.Rename(dir, to); err != nil {
		return err
	}
	if err := errors.Join(t.fs.SyncDir(t.trash()), t.fs.SyncDir(filepath.Dir(dir))); err != nil {
		return err
	}
	t.background.Go(func() { t.removeTrash(to) })
	return nil
}

func (t *QueueTable) removeTrash(dir string) {
	if err := t.fs.RemoveAll(dir); err != nil {
		t.log.Warn("folder of a deleted topic stays until the next start", "file", dir, "err", err)
	}
}

// emptyTrash removes what earlier runs left.
func (t *QueueTable) emptyTrash() {
	if _, err := t.fs.Stat(t.trash()); err == nil {
		t.removeTrash(t.trash())
	}
}

// Close gives the descriptors back and waits for what runs in the background. It writes nothing: see WriteBack and Sync.
func (t *QueueTable) Close() error {
	t.stop()
	t.background.Wait()
	t.files.close()
	if t.volume != nil {
		return t.volume.Close()
	}
	return nil
}

// install fills an empty table at once. It refuses all or takes all.
func (t *QueueTable) install(topics []topicBounds) error {
	t.createMu.Lock()
	defer t.createMu.Unlock()
	var shards [topicShards]map[string]*topicQueues
	for i := range shards {
		shards[i] = map[string]*topicQueues{}
	}
	for i := range topics {
		tb := &topics[i]
		if err := checkQueueName(tb.name, 0); err != nil {
			return err
		}
		shard := shards[maphash.String(t.seed, tb.name)%topicShards]
		if shard[tb.name] != nil {
			return fmt.Errorf("topic %s is there twice", tb.name)
		}
		tq := &topicQueues{name: tb.name}
		queues := make([]*ConsumeQueue, len(tb.queues))
		for i, b := range tb.queues {
			q := t.newQueue(tb.name, b.queueID)
			q.Next = b.max
			q.min.Store(b.min)
			q.max.Store(b.max)
			q.minPhys.Store(b.minPhys)
			q.lastPhys.Store(b.lastPhys)
			queues[i] = q
		}
		tq.queues.Store(&queues)
		shard[tb.name] = tq
	}
	if t.count > 0 {
		return errors.New("the table has queues already")
	}
	for i := range shards {
		t.topics[i].Store(&shards[i])
	}
	t.count = len(topics)
	t.lookup.growLocked(t.All)
	for i := range topics {
		t.installTails(&topics[i])
	}
	return nil
}

func (t *QueueTable) installTails(tb *topicBounds) {
	shard := *t.topics[maphash.String(t.seed, tb.name)%topicShards].Load()
	for i, q := range *shard[tb.name].queues.Load() {
		q.installTail(tb.queues[i].tail, tb.queues[i].max)
	}
}
