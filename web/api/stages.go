package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Asked are the groups whose members are to approve now: those of the stage that is open, of the extension where one waits; all
// that may where no stage is.
func (g Grant) Asked() []string {
	if g.Extension != nil {
		return g.Extension.Asked()
	}
	return asked(g.Stages, g.MayApprove)
}

// Asked are the groups whose members are to approve it now.
func (e Extension) Asked() []string { return asked(e.Stages, e.MayApprove) }

func asked(stages []Stage, all []string) []string {
	if i := open(stages); i >= 0 {
		return stages[i].Groups
	}
	return all
}

func open(stages []Stage) int {
	return slices.IndexFunc(stages, func(s Stage) bool { return s.State == "open" })
}

// WaitsFor says for whose approval it waits, and at which stage where there are several: "leads or owners (stage 2 of 2, owners)".
func (g Grant) WaitsFor() string {
	stages := g.Stages
	if g.Extension != nil {
		stages = g.Extension.Stages
	}
	text := strings.Join(g.Asked(), ", ")
	if i := open(stages); i >= 0 && len(stages) > 1 {
		text += " (" + stages[i].Label(len(stages)) + ")"
	}
	return text
}

// StageLabel names the open stage of what waits, where there are several; empty: nothing waits, or there is one stage.
func (g Grant) StageLabel() string {
	stages := g.Stages
	switch {
	case g.Extension != nil:
		stages = g.Extension.Stages
	case g.State != "pending":
		return ""
	}
	if i := open(stages); i >= 0 && len(stages) > 1 {
		return stages[i].Label(len(stages))
	}
	return ""
}

// Label names a stage among how many there are.
func (s Stage) Label(of int) string {
	label := fmt.Sprintf("stage %d of %d", s.Number, of)
	if s.Name != strconv.Itoa(s.Number) {
		label += ", " + s.Name
	}
	return label
}

// ApprovedBy says whose approvals it takes, stage by stage: "leads", "leads, then 2 of security or dba"; empty: nobody's.
func (o Offer) ApprovedBy() string {
	var parts []string
	for _, s := range o.Stages {
		part := strings.Join(s.Groups, " or ")
		if s.Needed > 1 {
			part = fmt.Sprintf("%d of %s", s.Needed, part)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", then ")
}
