package ioengine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Place is where something was measured: figures of one place say nothing about another.
type Place struct {
	Kernel     string `json:"kernel"`               // linux 6.18.1; elsewhere the system's name
	FileSystem string `json:"fileSystem,omitempty"` // ext4
	Device     string `json:"device,omitempty"`     // /dev/nvme0n1p1
	mount      string
}

// PlaceOf tells where dir lies, or will when it is made. What the system does not show stays empty.
func PlaceOf(dir string) Place {
	p := Place{Kernel: runtime.GOOS}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		p.Kernel += " " + strings.TrimSpace(string(release))
	}
	dir = Existing(dir)
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		// 27 1 254:0 / /data rw,relatime shared:1 - ext4 /dev/vda rw,discard: of the mounts above dir the deepest, of several there the latest.
		where, what, _ := strings.Cut(line, " - ")
		w, f := strings.Fields(where), strings.Fields(what)
		if len(w) < 5 || len(f) < 2 {
			continue
		}
		if point := mountText.Replace(w[4]); within(dir, point) && len(point) >= len(p.mount) {
			p.FileSystem, p.Device, p.mount = f[0], mountText.Replace(f[1]), point
		}
	}
	return p
}

// mountText undoes what the kernel does to the blanks of a path.
var mountText = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func within(dir, point string) bool {
	return point == "/" || dir == point || strings.HasPrefix(dir, point+"/")
}

// SameDisk tells that two folders lie on one mounted file system, as far as the system shows it.
func SameDisk(a, b string) bool { return PlaceOf(a).mount == PlaceOf(b).mount }

// Existing is dir, or the nearest folder above it that there is.
func Existing(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "."
	}
	for {
		if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
