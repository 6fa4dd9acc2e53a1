package tune

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/ringmq/ringmq/ioengine"
)

// Options say what is measured, and for how long.
type Options struct {
	StoreDir string // storePathRootDir: the result goes there
	LogDir   string // storePathCommitLog: its disk is measured
	// Duration is how long it takes, about; preparing segments on a slow disk takes longer. One minute by default.
	Duration time.Duration
	// Progress is told before each measurement. May be nil.
	Progress func(Progress)

	// For tests.
	fsys     ioengine.FS
	sections func(*machine) []*section
	now      func() time.Time
}

// Progress is where a run is.
type Progress struct {
	Step, Steps   int // from 1
	Round, Rounds int // from 1
	Section, Kind string
}

const (
	// mostRounds and leastRounds are even, so that each kind is as often early as late. Of two that are equally good, one seems clearly
	// better by chance in one of 35 runs of 4 rounds, in one of 462 of 6.
	mostRounds, leastRounds = 6, 4
	// measuredShare of the time is for measuring, the rest for what comes before the clock starts.
	measuredShare = 0.6
	shortestStep  = 20 * time.Millisecond
	// space is the most that a run takes on the disk, and what must be free.
	space = 1 << 30
)

// section is one question with several answers.
type section struct {
	name, title, about string
	columns            []column
	// kinds are the answers, the one first that is preferred; loads what each is measured with.
	kinds, loads []string
	// measure runs all loads of one kind once, each for about d. The error is one that isRefused knows where the kind cannot be had.
	measure func(ctx context.Context, kind string, d time.Duration) ([]Figures, error)
	// score makes one number of the figures of one round, higher is better.
	score func(loads []Figures) float64
	scale string // what the score is, for people

	// rounds are the figures so far: by kind, round and load.
	rounds  map[string][][]Figures
	refused map[string]string
}

// Figures are the results of one measurement by their column's key.
type Figures map[string]float64

// machine is what the sections measure with.
type machine struct {
	fsys    ioengine.FS
	scratch string
	// segment is the size of the logs' segments, tail that of their Tails, coldBytes that of the file for cold reads; 0 for the first two: as a trial has them.
	segment, tail, coldBytes int64
	cold                     *ioengine.ColdProbe // made when it is first needed
}

// errRefused is for kinds that are not to be had here and have no error of their own.
var errRefused = errors.New("not to be had here")

func isRefused(err error) bool {
	return errors.Is(err, errRefused) || errors.Is(err, ioengine.ErrEngineRefused) || errors.Is(err, ioengine.ErrColdRefused)
}

func allSections(m *machine) []*section {
	return []*section{syncSection(m), asyncSection(m), coldSection(m), reactorSection()}
}

// Run measures and writes the result to the store's root. An error, ctx's included, leaves nothing behind.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.setDefaults()
	began := o.now()
	s, err := openScratch(o.fsys, o.StoreDir, o.LogDir)
	if err != nil {
		return nil, err
	}
	m := &machine{fsys: o.fsys, scratch: s.dir, coldBytes: coldBytes}
	report, err := measureAll(ctx, &o, o.sections(m))
	err = errors.Join(err, m.close())
	if err != nil {
		return nil, errors.Join(err, s.close(false))
	}
	report.Place, report.System = ioengine.PlaceOf(s.dir), runtime.GOOS+"/"+runtime.GOARCH
	report.StoreDir, report.MeasuredAt = o.StoreDir, began.UTC().Truncate(time.Second)
	report.Seconds = o.now().Sub(began).Seconds()
	if err := report.tuned().Save(o.fsys, o.StoreDir); err != nil {
		return nil, errors.Join(err, s.close(false))
	}
	return report, s.close(true)
}

func (o *Options) setDefaults() {
	if o.Duration <= 0 {
		o.Duration = time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.fsys == nil {
		o.fsys = ioengine.OS()
	}
	if o.sections == nil {
		o.sections = allSections
	}
	if o.now == nil {
		o.now = time.Now
	}
}

func (m *machine) close() error {
	if m.cold == nil {
		return nil
	}
	return m.cold.Close()
}

// measureAll runs the rounds. After the least that tell something it stops where the next ones would take too long.
func measureAll(ctx context.Context, o *Options, sections []*section) (*Report, error) {
	steps, measurements := 0, 0
	for _, s := range sections {
		s.rounds, s.refused = make(map[string][][]Figures), make(map[string]string)
		steps += len(s.kinds)
		measurements += len(s.kinds) * len(s.loads)
	}
	each := max(time.Duration(measuredShare*float64(o.Duration))/time.Duration(max(1, measurements*mostRounds)), shortestStep)
	p := Progress{Rounds: mostRounds, Steps: steps * mostRounds}
	began := o.now()
	for p.Round = 1; p.Round <= p.Rounds; p.Round++ {
		if done := p.Round - 1; done >= leastRounds && done%2 == 0 && o.now().Sub(began)*time.Duration(done+2) > o.Duration*time.Duration(done)*11/10 {
			break
		}
		for _, s := range sections {
			if err := s.round(ctx, &p, o.Progress, each); err != nil {
				return nil, err
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	report := &Report{Rounds: p.Round - 1, Measured: each.Seconds()}
	for _, s := range sections {
		report.Sections = append(report.Sections, s.report())
	}
	return report, nil
}

// round measures each kind once: forward in odd rounds, backward in even ones.
func (s *section) round(ctx context.Context, p *Progress, tell func(Progress), d time.Duration) error {
	for n := range s.kinds {
		kind := s.kinds[n]
		if p.Round%2 == 0 {
			kind = s.kinds[len(s.kinds)-1-n]
		}
		p.Step++
		if s.refused[kind] != "" {
			continue
		}
		p.Section, p.Kind = s.title, kind
		tell(*p)
		if err := ctx.Err(); err != nil {
			return err
		}
		loads, err := s.measure(ctx, kind, d)
		if isRefused(err) {
			s.refused[kind] = err.Error()
			delete(s.rounds, kind)
			continue
		}
		if err != nil {
			return fmt.Errorf("measure %s of %s: %w", s.title, kind, err)
		}
		s.rounds[kind] = append(s.rounds[kind], loads)
	}
	return nil
}

// report sums up the rounds.
func (s *section) report() Section {
	out := Section{Name: s.name, Title: s.title, About: s.about, Scale: s.scale, columns: s.columns}
	var candidates []Candidate
	for _, kind := range s.kinds {
		c := Candidate{Name: kind, Refused: s.refused[kind]}
		if c.Refused != "" {
			out.Rows = append(out.Rows, Row{Kind: kind, Refused: c.Refused})
		}
		for i, load := range s.loads {
			if c.Refused == "" {
				out.Rows = append(out.Rows, Row{Kind: kind, Load: load, Figures: spreads(s.rounds[kind], i)})
			}
		}
		for _, loads := range s.rounds[kind] {
			c.Scores = append(c.Scores, s.score(loads))
		}
		candidates = append(candidates, c)
	}
	if verdict, ok := Choose(candidates); ok {
		out.Choice = &verdict
	}
	return out
}

// spreads are the medians and ends of one load's figures.
func spreads(rounds [][]Figures, load int) map[string]Spread {
	all := make(map[string][]float64)
	for _, loads := range rounds {
		for key, value := range loads[load] {
			all[key] = append(all[key], value)
		}
	}
	out := make(map[string]Spread)
	for key, values := range all {
		out[key] = SpreadOf(values)
	}
	return out
}
