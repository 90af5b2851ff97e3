package people

import (
	"math/rand/v2"
	"regexp"
	"testing"
)

// Nobody's real number is ever dialed: 555-0100 to 0199, and Ofcom's numbers for drama.
func TestNumbersAreFictional(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	fiction := regexp.MustCompile(`^(1\d{3}55501\d{2}|447700900\d{3})$`)
	for range 2000 {
		if n := CallerNumber(r); !fiction.MatchString(n) {
			t.Fatalf("%s is no fictional number", n)
		}
		if CallerName(r) == "" {
			t.Fatal("a caller without a name")
		}
	}
}

func TestAgents(t *testing.T) {
	for _, x := range []struct {
		n       int
		id, ext string
	}{{1, "agent1", "1001"}, {999, "agent999", "1999"}, {1000, "agent1000", "1001000"}} {
		if Agent(x.n) != x.id || Extension(x.n) != x.ext || AgentName(x.n) == "" {
			t.Errorf("%d: %s %s %s", x.n, Agent(x.n), Extension(x.n), AgentName(x.n))
		}
	}
}
