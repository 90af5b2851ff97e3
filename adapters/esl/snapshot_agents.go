package esl

import "strings"

// snapshotAgents reports every agent of mod_callcenter as `callcenter_config agent list` has them: a line of column names,
// a line each, then +OK. Agents are not asked for one by one, so a change that came while the list was made is told
// again by its event.
func (n *normalizer) snapshotAgents(list string) {
	lines := strings.Split(list, "\n")
	column := map[string]int{}
	for i, name := range strings.Split(strings.TrimSpace(lines[0]), "|") {
		column[name] = i
	}
	for _, line := range lines[1:] {
		row := strings.Split(strings.TrimSpace(line), "|")
		field := func(name string) string {
			if i, ok := column[name]; ok && i < len(row) && len(row) == len(column) {
				return row[i]
			}
			return ""
		}
		n.snapshotAgent(field("name"), statuses[field("status")], field("state"))
	}
}

func (n *normalizer) snapshotAgent(name, status, state string) {
	if name == "" || status == "" {
		return
	}
	a := n.agent(name)
	a.status, a.busy = status, state == "In a queue call"
	if a.busy {
		status = "busy"
	}
	n.emitAgent(name, status)
}
