package broker

// turnTally gathers what one reactor's sends of a turn add to the statistics. Each counter is shared with whoever reads it, and adding to it is
// a locked instruction; a dozen of them for every message would be a tenth of its cost. So they are added once a turn and queue, before the
// turn's answers leave: who has his answer finds himself counted.
type turnTally struct {
	rows [tallyRows]tallyRow
	used int // rows in use
}

// tallyRows is how many queues one turn counts apart; for one more, the others are added up first.
const tallyRows = 16

// tallyRow is the sends of one turn to one queue.
type tallyRow struct {
	topic   *Topic
	queueID int32
	// sends are calls; a batch is one and has several messages. answered are those of them that do not wait for the device.
	sends, answered, messages, bytes int64
}

// row is the row of a queue, nil when there is no room.
func (t *turnTally) row(topic *Topic, queueID int32) *tallyRow {
	for i := range t.rows[:t.used] {
		if r := &t.rows[i]; r.queueID == queueID && r.topic == topic {
			return r
		}
	}
	if t.used == len(t.rows) {
		return nil
	}
	r := &t.rows[t.used]
	t.used++
	*r = tallyRow{topic: topic, queueID: queueID}
	return r
}

// tallySend counts a stored send. answered: it does not wait for the device.
func (h *handler) tallySend(answered bool) {
	s := &h.send
	row := h.send.turn.row(s.topic, s.hdr.QueueID)
	if row == nil {
		h.countTurn()
		row = s.turn.row(s.topic, s.hdr.QueueID)
	}
	row.sends++
	row.messages += int64(max(1, len(s.put.BatchOffsets())))
	row.bytes += s.put.End - s.put.PhysicalOffset
	if answered {
		row.answered++
	}
}

// countTurn adds up what was stored since the last call. The answers leave together, so one look at the clock serves them all.
func (h *handler) countTurn() {
	t, stats := &h.send.turn, h.send.stats
	if t.used == 0 {
		return
	}
	millis := millisSince(h.reactor.Now().MonoNanos)
	for i := range t.rows[:t.used] {
		r := &t.rows[i]
		stats.storedSends(r.topic, r.sends, r.messages, r.bytes)
		if r.answered > 0 {
			stats.putsTook(r.topic, r.queueID, r.answered, millis)
		}
		r.topic = nil
	}
	t.used = 0
}
