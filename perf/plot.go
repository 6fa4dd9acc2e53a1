package perf

import (
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Series is one line of a percentile plot.
type Series struct {
	Name      string
	Histogram *hdrhistogram.Histogram
}

// The plot: time over percentile, both logarithmic. The percentile axis shows 1-p, so that each nine takes the same room.
const (
	plotWidth, plotHeight     = 960, 560
	plotLeft, plotRight       = 84, 190
	plotTop, plotBottom       = 52, 64
	plotInnerW, plotInnerH    = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
	plotFont                  = "font-family='system-ui,sans-serif'"
	plotGrid, plotText        = "#d9dde3", "#333a44"
	plotStrokeWidth, plotTick = 2.2, 6
)

// Colours that differ for colour-blind readers, too (Okabe and Ito).
var plotColours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c00"}

// Plot draws the series as an SVG document.
func Plot(title string, series []Series) string {
	low, high, nines := plotRange(series)
	x := func(percentile float64) float64 {
		return plotLeft + plotInnerW*min(-math.Log10(max(1-percentile/100, 1e-12)), nines)/nines
	}
	y := func(nanos float64) float64 {
		return plotTop + plotInnerH*(1-(math.Log10(max(nanos, 1))-low)/(high-low))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' role='img'>\n", plotWidth, plotHeight, plotWidth, plotHeight)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width='100%%' height='100%%' fill='#ffffff'/>\n", escapeXML(title))
	fmt.Fprintf(&b, "<text x='%d' y='30' %s font-size='17' font-weight='600' fill='%s'>%s</text>\n", plotLeft, plotFont, plotText, escapeXML(title))
	plotAxes(&b, low, high, nines, x, y)
	for i, s := range series {
		colour := plotColours[i%len(plotColours)]
		fmt.Fprintf(&b, "<polyline fill='none' stroke='%s' stroke-width='%v' stroke-linejoin='round' points='%s'/>\n", colour, plotStrokeWidth, plotPoints(s.Histogram, nines, x, y))
		at := plotTop + 14 + 38*i
		fmt.Fprintf(&b, "<rect x='%d' y='%d' width='18' height='4' fill='%s'/>\n", plotWidth-plotRight+16, at-6, colour)
		fmt.Fprintf(&b, "<text x='%d' y='%d' %s font-size='13' fill='%s'>%s</text>\n", plotWidth-plotRight+40, at, plotFont, plotText, escapeXML(s.Name))
		fmt.Fprintf(&b, "<text x='%d' y='%d' %s font-size='11' fill='%s'>max %s</text>\n", plotWidth-plotRight+40, at+15, plotFont, plotText, nanos(s.Histogram.Max()))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// plotRange is the decades of time, and how many nines the largest histogram can tell.
func plotRange(series []Series) (low, high, nines float64) {
	low, high, nines = math.Inf(1), 0, 2
	for _, s := range series {
		if s.Histogram.TotalCount() == 0 {
			continue
		}
		low = min(low, math.Floor(math.Log10(float64(max(s.Histogram.Min(), 1)))))
		high = max(high, math.Ceil(math.Log10(float64(s.Histogram.Max()+1))))
		nines = max(nines, math.Ceil(math.Log10(float64(s.Histogram.TotalCount()))))
	}
	if math.IsInf(low, 1) {
		low = 3
	}
	return low, max(high, low+1), min(nines, 7)
}

func plotAxes(b *strings.Builder, low, high, nines float64, x, y func(float64) float64) {
	for decade := low; decade <= high; decade++ {
		at := y(math.Pow(10, decade))
		fmt.Fprintf(b, "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' stroke='%s'/>\n", plotLeft, at, plotWidth-plotRight, at, plotGrid)
		fmt.Fprintf(b, "<text x='%d' y='%.1f' %s font-size='12' fill='%s' text-anchor='end'>%s</text>\n", plotLeft-10, at+4, plotFont, plotText, decadeName(decade))
	}
	tick := func(p float64) {
		at := x(p)
		fmt.Fprintf(b, "<line x1='%.1f' y1='%d' x2='%.1f' y2='%d' stroke='%s'/>\n", at, plotTop, at, plotHeight-plotBottom+plotTick, plotGrid)
		fmt.Fprintf(b, "<text x='%.1f' y='%d' %s font-size='12' fill='%s' text-anchor='middle'>%v</text>\n", at, plotHeight-plotBottom+22, plotFont, plotText, p)
	}
	tick(0)
	tick(50)
	for n := 1.0; n <= nines; n++ {
		tick(math.Round((100-math.Pow(10, 2-n))*1e6) / 1e6)
	}
	fmt.Fprintf(b, "<text x='%d' y='%d' %s font-size='13' fill='%s' text-anchor='middle'>percentile</text>\n", plotLeft+plotInnerW/2, plotHeight-14, plotFont, plotText)
}

func decadeName(decade float64) string {
	switch n := int(decade); {
	case n < 3:
		return fmt.Sprintf("%.0f ns", math.Pow(10, decade))
	case n < 6:
		return fmt.Sprintf("%.0f µs", math.Pow(10, decade-3))
	case n < 9:
		return fmt.Sprintf("%.0f ms", math.Pow(10, decade-6))
	}
	return fmt.Sprintf("%.0f s", math.Pow(10, decade-9))
}

// plotPoints takes 200 points, evenly spread on the axis.
func plotPoints(h *hdrhistogram.Histogram, nines float64, x, y func(float64) float64) string {
	if h.TotalCount() == 0 {
		return ""
	}
	const steps = 200
	var b strings.Builder
	end := min(nines, math.Log10(float64(h.TotalCount()))+0.0001)
	for i := range steps + 1 {
		p := 100 * (1 - math.Pow(10, -end*float64(i)/steps))
		if i == steps && end < nines {
			p = 100 * (1 - math.Pow(10, -end))
		}
		fmt.Fprintf(&b, "%.1f,%.1f ", x(p), y(float64(h.ValueAtPercentile(p))))
	}
	return strings.TrimSpace(b.String())
}

func escapeXML(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&#39;", `"`, "&#34;").Replace(s)
}

func (r *Report) plot(file string) error {
	var series []Series
	for i := range r.Latencies {
		if r.Latencies[i].Count > 0 {
			series = append(series, Series{r.Latencies[i].Name, r.Latencies[i].Histogram})
		}
	}
	title := fmt.Sprintf("%s, %s loop, %s msg/s, %d B", r.Kind, r.Load.Loop, count(r.MessagesPerSecond), r.Load.Size)
	if err := os.WriteFile(file, []byte(Plot(title, series)), 0o644); err != nil {
		return fmt.Errorf("--plot: %w", err)
	}
	return nil
}
