package call

import "fmt"

// check looks for what would not have been written: the tracker relies on it.
func (s *stateCodec) check() error {
	for i, l := range s.legs {
		if l.c == nil || l.conn == nil {
			return fmt.Errorf("leg number %d has no call or no connection", i+1)
		}
		if m := l.conn.Media; m != nil && m.Codec != "" && len(m.CodecsSeen) == 0 {
			return fmt.Errorf("connection %s has a codec that was not seen", l.conn.ID)
		}
	}
	for _, r := range s.rooms {
		if err := allThere("room "+r.id.id, r.legs); err != nil {
			return err
		}
	}
	for i, c := range s.calls {
		if err := c.check(); err != nil {
			return err
		}
		if c.done != (i >= s.t.active) {
			return fmt.Errorf("call %s has ended and is in progress, or neither", c.call.ID)
		}
		if s.circular(c) {
			return fmt.Errorf("call %s was merged into itself", c.call.ID)
		}
	}
	return s.checkEnded()
}

// circular reports whether the calls that c was merged into lead back to one of them.
func (s *stateCodec) circular(c *tracked) bool {
	for range s.calls {
		if c = s.t.roots[c.call.MergedInto]; c == nil {
			return false
		}
	}
	return c != nil
}

func (c *tracked) check() error {
	if c.queueOpen && c.call.Queue == nil {
		return fmt.Errorf("call %s waits in no queue", c.call.ID)
	}
	if err := allThere("call "+c.call.ID, c.legs); err != nil {
		return err
	}
	return allThere("call "+c.call.ID, c.shedLegs)
}

func (s *stateCodec) checkEnded() error {
	for _, c := range s.t.waiting {
		if c == nil {
			return fmt.Errorf("a waiting call is none")
		}
	}
	for _, x := range s.t.ended {
		if x.c == nil {
			return fmt.Errorf("an ended call is none")
		}
		if err := allThere("ended call "+x.c.call.ID, x.legs); err != nil {
			return err
		}
	}
	return nil
}

func allThere(what string, ls []*leg) error {
	for _, l := range ls {
		if l == nil {
			return fmt.Errorf("%s has a leg that is none", what)
		}
	}
	return nil
}
