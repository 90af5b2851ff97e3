// Package people names the callers and agents of simulated calls.
package people

import (
	"math/rand/v2"
	"strconv"
)

var firstNames = []string{"Ada", "Agnes", "Amir", "Beatriz", "Ben", "Carla", "Chen", "Dana", "Emil", "Fatima", "Grace", "Hugo", "Ines", "Jonas",
	"Keiko", "Lena", "Marco", "Nadia", "Omar", "Priya", "Quinn", "Rosa", "Sam", "Tariq", "Uma", "Viktor", "Wanda", "Ximena", "Yusuf", "Zoe"}

var lastNames = []string{"Adams", "Berg", "Costa", "Dubois", "Evans", "Fischer", "Garcia", "Haddad", "Ito", "Jensen", "Khan", "Lopez", "Meyer",
	"Novak", "Okafor", "Patel", "Reyes", "Silva", "Tanaka", "Ueda", "Vargas", "Weber", "Young", "Zhang"}

var areaCodes = []string{"201", "206", "212", "215", "303", "305", "312", "404", "415", "503", "512", "602", "617", "702", "713", "801", "808", "916"}

// CallerNumber draws a fictional number without its +: North American 555-01xx, or a United Kingdom drama number.
func CallerNumber(r *rand.Rand) string {
	if r.IntN(8) == 0 {
		return "447700900" + Pad(r.IntN(1000), 3)
	}
	return "1" + areaCodes[r.IntN(len(areaCodes))] + "55501" + Pad(1+r.IntN(99), 2)
}

// CallerName draws what a caller calls himself.
func CallerName(r *rand.Rand) string {
	n := firstNames[r.IntN(len(firstNames))]
	if r.IntN(3) == 0 {
		return n
	}
	return n + " " + lastNames[r.IntN(len(lastNames))]
}

// Agent is the user name of the nth agent, from 1: agent1.
func Agent(n int) string { return "agent" + strconv.Itoa(n) }

// AgentName is that agent's display name.
func AgentName(n int) string {
	return firstNames[(n*7)%len(firstNames)] + " " + lastNames[(n*5)%len(lastNames)]
}

// Extension is that agent's: 1001 for agent1.
func Extension(n int) string {
	if n < 1000 {
		return "1" + Pad(n, 3)
	}
	return "1" + Pad(n, 6)
}

// Pad writes n with zeros before it.
func Pad(n, width int) string {
	s := strconv.Itoa(n)
	for len(s) < width {
		s = "0" + s
	}
	return s
}
