package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// clockVar names the file from which a steppable ctigate reads how far off its clock is.
const clockVar = "CTIGATE_CHAOS_CLOCK"

// stepped is added to Go's package time: eight bytes of a file that the process has mapped are what its wall clock is off,
// in nanoseconds. Its monotonic clock goes on undisturbed, as it does when a machine's clock is set.
const stepped = `package time

import (
	"syscall"
	"unsafe"
)

var wallOff = func() *int64 {
	if file, ok := syscall.Getenv("` + clockVar + `"); ok {
		if fd, err := syscall.Open(file, syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err == nil {
			if b, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED); err == nil {
				return (*int64)(unsafe.Pointer(&b[0]))
			}
		}
		panic("no clock in " + file)
	}
	return new(int64)
}()

func steppedNow() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	if wallOff != nil { // it is when package time begins
		all := int64(nsec) + *wallOff
		sec += all / 1e9
		if all %= 1e9; all < 0 {
			sec, all = sec-1, all+1e9
		}
		nsec = int32(all)
	}
	return sec, nsec, mono
}
`

// steppable makes what go build needs for a program whose wall clock can be set: Linux has no way to set that of one
// process, so the program is the same but for what time.Now tells.
func steppable(dir string) (overlay string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("asking Go where its library is: %w", err)
	}
	lib := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(lib, "time.go"))
	if err != nil {
		return "", fmt.Errorf("reading Go's package time: %w", err)
	}
	begin := []byte("func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n")
	if !bytes.Contains(source, begin) {
		return "", errors.New("this Go's time.Now is another than the one this knows to set off: run with --clocks=false")
	}
	source = bytes.Replace(source, begin, bytes.Replace(begin, []byte("runtimeNow"), []byte("steppedNow"), 1), 1)
	replace := map[string]string{}
	for name, text := range map[string][]byte{"time.go": source, "stepped.go": []byte(stepped)} {
		file := filepath.Join(dir, "overlay-"+name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(lib, name)] = file
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

func (n *node) clock() string { return filepath.Join(n.dir, "clock") }

// setClock sets the node's wall clock off by d. It stays so when the node is started again.
func (n *node) setClock(d time.Duration) error {
	f, err := os.OpenFile(n.clock(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(d)), 0)
	return err
}
