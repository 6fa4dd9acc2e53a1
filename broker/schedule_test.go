package broker

import (
	"math"
	"testing"
	"time"
)

// The deliverer of delayed messages sleeps as long as it may: until the next one is due, but no longer than one that comes meanwhile can wait.
func TestScheduleRests(t *testing.T) {
	const never = math.MaxInt64
	for name, c := range map[string]struct {
		levels      []time.Duration
		next        int64 // from now, ms
		moved       bool
		least, most time.Duration
	}{
		"nothing waits":                 {[]time.Duration{time.Second, time.Hour}, never, false, 1, time.Second},
		"due soon":                      {[]time.Duration{time.Second}, 30, false, 25 * time.Millisecond, 30 * time.Millisecond},
		"due already":                   {[]time.Duration{time.Second}, -5, false, 1, time.Millisecond},
		"due in hours":                  {[]time.Duration{time.Second}, 1e7, false, 1, time.Second},
		"a level shorter than the rest": {[]time.Duration{time.Hour, 300 * time.Millisecond}, never, false, 1, 300 * time.Millisecond},
		"a level of nothing":            {[]time.Duration{0}, never, false, 1, scheduleTick},
		"deliveries are on their way":   {[]time.Duration{time.Second}, never, true, 1, scheduleTick},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.UnixMilli(1_700_000_000_000)
			b := &Broker{now: func() time.Time { return now }, delayLevels: c.levels}
			d := delivery{schedule: &schedule{b: b}, moved: c.moved}
			next := c.next
			if next != never {
				next += now.UnixMilli()
			}
			if rest := d.rest(next); rest < c.least || rest > c.most {
				t.Errorf("%v, not in [%v, %v]", rest, c.least, c.most)
			}
		})
	}
}
