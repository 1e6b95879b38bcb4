package slack

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	slackgo "github.com/slack-go/slack"

	"sallyport/grant"
	"sallyport/grant/policy"
)

// The names of what people can press.
const (
	approveAction = "sallyport_approve"
	denyAction    = "sallyport_deny"
	openAction    = "sallyport_open"
	voteForm      = "sallyport_vote"
	commentBlock  = "comment"
)

// choice is what a button carries.
type choice struct {
	Grant   string `json:"grant"`
	Round   int    `json:"round"`
	Stage   int    `json:"stage,omitempty"` // that was open, from 1
	Approve bool   `json:"approve"`
	MAC     string `json:"mac,omitempty"`
}

// seal writes a choice so that nobody else can make one.
func (s *Slack) seal(c choice) string {
	c.MAC = base64.RawURLEncoding.EncodeToString(s.mac(c))
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // a plain struct
	}
	return string(text)
}

// unseal reads what seal wrote.
func (s *Slack) unseal(text string) (choice, bool) {
	var c choice
	if len(text) > 500 || json.Unmarshal([]byte(text), &c) != nil {
		return choice{}, false
	}
	given, err := base64.RawURLEncoding.DecodeString(c.MAC)
	return c, err == nil && hmac.Equal(given, s.mac(c))
}

func (s *Slack) mac(c choice) []byte {
	mac := hmac.New(sha256.New, s.key)
	fmt.Fprintf(mac, "%q %d %t", c.Grant, c.Round, c.Approve)
	if c.Stage > 0 {
		fmt.Fprintf(mac, " %d", c.Stage)
	}
	return mac.Sum(nil)
}

// plain is text that is shown as it is: no mention, link or emoji is made of it.
func plain(text string) *slackgo.TextBlockObject {
	if strings.TrimSpace(text) == "" {
		text = "-" // Slack takes no block without text
	}
	return slackgo.NewTextBlockObject(slackgo.PlainTextType, clip(text, 2900), false, false)
}

// headline is the message in one line: what notifications on phones show.
func (s *Slack) headline(e grant.Event) string {
	g := e.Grant
	what := g.Account + "@" + g.Target
	by := func(text string) string {
		if e.Actor != "" && e.Actor != "system" {
			return text + " by " + e.Actor
		}
		return text
	}
	switch {
	case e.What == "grant.break_glass":
		return fmt.Sprintf("EMERGENCY: %s has broken the glass for %s, for %s", g.Identity.Label(), what, policy.Short(g.Duration))
	case e.What == "grant.review_overdue":
		return fmt.Sprintf("OVERDUE: nobody has reviewed what %s did with %s in an emergency", g.Identity.Label(), what)
	case e.What == "grant.reviewed":
		return by(fmt.Sprintf("%s for %s: reviewed", what, g.Identity.Label()))
	case g.Extension != nil:
		return fmt.Sprintf("%s asks for %s more of %s", g.Identity.Label(), policy.Short(g.Extension.Duration), what)
	case g.State == grant.Pending:
		return fmt.Sprintf("%s asks for %s for %s", g.Identity.Label(), what, policy.Short(g.Duration))
	case e.What == "grant.extended":
		return by(fmt.Sprintf("%s: extended until %s for %s", what, clock(g.Until), g.Identity.Label()))
	case e.What == "grant.extension_denied":
		return by(fmt.Sprintf("%s: %s gets no more time", what, g.Identity.Label()))
	case g.State == grant.Approved:
		return by(fmt.Sprintf("%s for %s: approved", what, g.Identity.Label()))
	case g.State == grant.Active:
		return fmt.Sprintf("%s for %s: active until %s", what, g.Identity.Label(), clock(g.Until))
	case g.State == grant.Ended:
		return by(fmt.Sprintf("%s for %s: ended, %s", what, g.Identity.Label(), strings.ReplaceAll(g.EndReason, "_", " ")))
	}
	return by(fmt.Sprintf("%s for %s: %s", what, g.Identity.Label(), g.State))
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// blocks are the message: what is asked, how it stands, and while it waits, in the latest of them, the buttons.
func (s *Slack) blocks(e grant.Event, buttons bool) []slackgo.Block {
	g := e.Grant
	blocks := []slackgo.Block{slackgo.NewHeaderBlock(plain(clip(s.headline(e), 140)))}
	blocks = append(blocks, slackgo.NewSectionBlock(nil, s.fields(g), nil))
	round := g.Round()
	if round < 0 {
		if e.Reason != "" && e.Kind != grant.EventRequested {
			blocks = append(blocks, slackgo.NewSectionBlock(plain("“"+e.Reason+"”"), nil, nil))
		}
		return append(blocks, footer(g))
	}
	if text := progress(g); text != "" {
		blocks = append(blocks, slackgo.NewSectionBlock(plain(text), nil, nil))
	}
	if !buttons {
		return append(blocks, footer(g))
	}
	stage := g.Stage()
	open := slackgo.NewButtonBlockElement(openAction, g.ID, plain("Open in the console")).WithURL(s.url + "/console/requests/" + g.ID)
	deny := slackgo.NewButtonBlockElement(denyAction, s.seal(choice{Grant: g.ID, Round: round, Stage: stage}), plain("Deny…")).WithStyle(slackgo.StyleDanger)
	approve := slackgo.NewButtonBlockElement(approveAction, s.seal(choice{Grant: g.ID, Round: round, Stage: stage, Approve: true}), plain("Approve…")).WithStyle(slackgo.StylePrimary)
	if g.Confirm { // a click here would not count
		open.Text, open.Style = plain("Approve in the console"), slackgo.StylePrimary
		return append(blocks, slackgo.NewActionBlock("decide", open, deny), footer(g))
	}
	return append(blocks, slackgo.NewActionBlock("decide", approve, deny, open), footer(g))
}

// fields say who, what, why, how long, and what it would permit.
func (s *Slack) fields(g grant.Grant) []*slackgo.TextBlockObject {
	var fields []*slackgo.TextBlockObject
	add := func(name, text string) {
		if text != "" && len(fields) < 10 {
			fields = append(fields, plain(name+"\n"+clip(text, 1500)))
		}
	}
	who := g.Identity.Label()
	if g.Identity.Email != "" && g.Identity.Email != who {
		who += " (" + g.Identity.Email + ")"
	}
	add("Who", who)
	what := g.Account + "@" + g.Target
	if t, ok := s.target(g.Target); ok {
		what += " (" + t.Kind + labels(t.Labels) + ")"
	}
	add("What", what)
	reason, length := g.Reason, policy.Short(g.Duration)
	if e := g.Extension; e != nil {
		reason, length = e.Reason, fmt.Sprintf("%s more, until %s", policy.Short(e.Duration), clock(g.Until.Add(e.Duration)))
	}
	add("Why", reason)
	add("How long", length)
	permits := "everything that the account may do"
	if limits := g.Terms.Limits.Words(); len(limits) > 0 {
		permits = strings.Join(limits, "; ")
	}
	if g.Role != "" {
		permits = "role " + g.Role + ": " + permits
	}
	add("It permits", permits)
	add("Ticket", g.Ticket)
	add("Policy", g.Policy)
	groups := g.Asked()
	if len(groups) == 0 {
		groups = g.MayApprove
	}
	add("Who can approve", strings.Join(groups, ", "))
	return fields
}

// progress says how far what waits has come: who has approved, and at which stage; empty: nobody has, and there is one stage.
func progress(g grant.Grant) string {
	stages := g.Standing()
	if g.Extension != nil {
		stages = g.Extension.Standing()
	}
	var lines []string
	for _, st := range stages {
		text := fmt.Sprintf("%d of %d have approved", st.Approvals, st.Needed)
		if len(stages) > 1 {
			text = st.Label(len(stages)) + ": " + text
			text = strings.ToUpper(text[:1]) + text[1:]
		} else if st.Approvals == 0 {
			continue
		}
		if len(st.By) > 0 {
			text += ": " + strings.Join(st.By, ", ")
		}
		switch {
		case len(stages) == 1:
		case st.State == grant.StageOpen:
			text += " (asked now: " + policy.Or(st.Groups) + ")"
		case st.State == grant.StageWaiting:
			text += " (" + policy.Or(st.Groups) + ", asked when the stages before are met)"
		}
		lines = append(lines, text)
	}
	return strings.Join(lines, "\n")
}

func labels(l map[string]string) (text string) {
	for _, k := range slices.Sorted(maps.Keys(l)) {
		text += ", " + k + "=" + l[k]
	}
	return text
}

func footer(g grant.Grant) slackgo.Block {
	text := g.ID
	if g.State == grant.Pending && !g.DecideBy.IsZero() {
		text += ", to be decided by " + clock(g.DecideBy)
	}
	return slackgo.NewContextBlock("", plain(text))
}

// form asks for a word on a decision, and shows once more what it is about, from the gateway's own record.
func (s *Slack) form(g grant.Grant, c choice) slackgo.ModalViewRequest {
	verb, label := "Deny", "Why not?"
	if c.Approve {
		verb, label = "Approve", "Anything to say?"
	}
	input := slackgo.NewPlainTextInputBlockElement(nil, commentBlock).WithMultiline(true).WithMaxLength(900)
	comment := slackgo.NewInputBlock(commentBlock, plain(label), nil, input)
	comment.Optional = c.Approve
	return slackgo.ModalViewRequest{
		Type: slackgo.VTModal, CallbackID: voteForm, PrivateMetadata: s.seal(c),
		Title: plain(verb + " " + g.ID), Submit: plain(verb), Close: plain("Back"),
		Blocks: slackgo.Blocks{BlockSet: []slackgo.Block{
			slackgo.NewSectionBlock(plain(s.headline(grant.Event{Grant: g})), nil, nil),
			slackgo.NewSectionBlock(nil, s.fields(g), nil),
			comment,
		}},
	}
}

// said is the form once it was sent: what has become of the vote.
func said(text string) *slackgo.ModalViewRequest {
	return &slackgo.ModalViewRequest{
		Type: slackgo.VTModal, Title: plain("Sallyport"), Close: plain("Close"),
		Blocks: slackgo.Blocks{BlockSet: []slackgo.Block{slackgo.NewSectionBlock(plain(text), nil, nil)}},
	}
}

// clip bounds a text as Slack counts: in UTF-16 units, of which an emoji takes two.
func clip(text string, most int) string {
	units, room := 0, 0 // room is where a text that has to be cut ends
	for i, r := range text {
		if units < most {
			room = i
		}
		if units += max(utf16.RuneLen(r), 1); units > most {
			return text[:room] + "…"
		}
	}
	return text
}
