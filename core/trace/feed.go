package trace

import (
	"errors"
	"fmt"
	"io"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// Feed reads the trace at path and hands each line to each, in order. Lines that cannot be read become dead letters of
// out. It returns nil at the end of the trace, or the first error of each or out.
func Feed(path string, out core.Emitter, each func(Line) error, sources ...Source) error {
	r, err := Open(path, sources...)
	if err != nil {
		return err
	}
	defer r.Close()
	var last call.Time
	for {
		line, err := r.Next()
		var bad *LineError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &bad):
			err = out.DeadLetter(core.DeadLetter{Raw: bad.Raw, Reason: bad.Error(), Received: last})
		case err != nil:
			return fmt.Errorf("replaying %s: %w", path, err)
		default:
			last = max(last, line.Received)
			err = each(line)
		}
		if err != nil {
			return err
		}
	}
}
