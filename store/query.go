package store

// QueryResult is what the key index knows.
type QueryResult struct {
	// Offsets are log offsets, newest first. Hashes matched, not keys.
	Offsets []int64
	// LastUpdateTime (ms) and LastUpdateOffset tell how far the index is.
	LastUpdateTime, LastUpdateOffset int64
}

// QueryByKey looks a key of a topic up; kind is 'K' key, 'U' unique key or 'T' tag; begin and end are store times in ms.
func (s *Store) QueryByKey(topic, key []byte, most int, begin, end int64, kind byte) (r QueryResult, err error) {
	if s.index == nil {
		return r, nil
	}
	s.indexer.catchUp(s)
	r.Offsets, r.LastUpdateTime, r.LastUpdateOffset, err = s.index.Query(topic, key, most, begin, end, kind)
	return r, err
}
