package ssh

import (
	"errors"
	"fmt"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
)

// What `ssh GATEWAY COMMAND` understands, with no target in it. It is a small part of the command line, for where that is not
// installed; nothing is run for it but what stands here.
const menuHelp = `ssh GATEWAY                                              who you are, what you may reach, your grants
ssh GATEWAY request ACCOUNT@TARGET [DURATION] REASON…    ask for a grant, such as: request deploy@web-1 30m index is broken
ssh GATEWAY request ACCOUNT@TARGET --ticket OPS-42 REASON…
ssh GATEWAY done [GRANT]                                 give a grant back; without its name, the only one you have
ssh GATEWAY help                                         this
`

// menu answers one request on a connection without a target.
func (c *connection) menu(r *xssh.Request) answer {
	var exec struct{ Line string }
	if r.Type == "subsystem" || r.Type == "exec" && xssh.Unmarshal(r.Payload, &exec) != nil {
		return c.whichTarget()
	}
	words := strings.Fields(exec.Line)
	if len(words) == 0 {
		return c.menuAnswer(c.greeting())
	}
	switch words[0] {
	case "help", "--help", "-h":
		return answer{text: strings.ReplaceAll(menuHelp, "GATEWAY", shown(c.handler.Host)), output: true}
	case "whoami", "targets", "grants":
		return c.menuAnswer(c.greeting())
	case "request":
		return c.menuAnswer(c.menuRequest(words[1:]))
	case "done", "release":
		return c.menuAnswer(c.menuDone(words[1:]))
	default:
		return c.whichTarget()
	}
}

func (c *connection) whichTarget() answer {
	return answer{status: exitRefused, no: refusal.New(refusal.UnknownTarget, "which target?").
		WithDetail("the user name is ACCOUNT@TARGET: ssh ACCOUNT@TARGET@%s", c.handler.Host).
		WithHint("without a target the gateway takes: request, done, help")}
}

func (c *connection) menuAnswer(text string, err error) answer {
	if err == nil {
		return answer{text: text, output: true}
	}
	if r := refusal.Of(err); r != nil {
		return answer{no: r, status: exitOf(r)}
	}
	c.handler.Log.Error("a command to the gateway itself failed", "error", err)
	return answer{status: exitFailed, text: "sallyport: the gateway could not do that; try again in a minute\n"}
}

func usage(format string, args ...any) error {
	return refusal.New(refusal.UnknownTarget, format, args...).WithHint("what there is says: help")
}

// menuRequest files a request.
func (c *connection) menuRequest(args []string) (string, error) {
	if len(args) == 0 {
		return "", usage("request what? ACCOUNT@TARGET is missing")
	}
	a := parseAddress(args[0])
	if a.target == "" {
		return "", usage("%q is not ACCOUNT@TARGET", clipped(args[0]))
	}
	ask := grant.Ask{Target: a.target, Account: a.account}
	args = args[1:]
	flag := func(name string) (string, bool) {
		if len(args) > 1 && args[0] == name {
			value := args[1]
			args = args[2:]
			return value, true
		}
		return "", false
	}
	for more := true; more; {
		more = false
		if t, ok := flag("--ticket"); ok {
			ask.Ticket, more = t, true
		}
		if d, ok := flag("--duration"); ok {
			args, more = append([]string{d}, args...), true
		}
		if len(args) > 0 && args[0] == "--reason" {
			args, more = args[1:], true
		}
		if len(args) > 0 && ask.Duration == 0 {
			if d, err := time.ParseDuration(args[0]); err == nil && d > 0 {
				ask.Duration, args, more = d, args[1:], true
			}
		}
	}
	ask.Reason = strings.Trim(strings.Join(args, " "), `"'`)
	g, err := c.handler.Grants.Request(grant.WithSource(c.ctx, c.client.RemoteAddr()), c.proof.identity, ask)
	if err != nil {
		return "", err
	}
	if g.State == grant.Pending {
		return fmt.Sprintf("%s: %s@%s for %s waits for %s.\nYou will see here when it is decided: ssh %s\n", g.ID, shown(g.Account), shown(g.Target), g.Duration,
			shown(strings.Join(g.Asked(), ", ")), shown(c.handler.Host)), nil
	}
	return fmt.Sprintf("%s: %s@%s for %s is yours; its time begins when you connect.\nConnect with:  ssh %s@%s@%s\n", g.ID, shown(g.Account), shown(g.Target), g.Duration,
		shown(g.Account), shown(g.Target), shown(c.handler.Host)), nil
}

// menuDone gives a grant back.
func (c *connection) menuDone(args []string) (string, error) {
	var id string
	switch len(args) {
	case 0:
		mine, err := c.ownGrants()
		if err != nil {
			return "", err
		}
		if len(mine) != 1 {
			names := make([]string, len(mine))
			for i, g := range mine {
				names[i] = g.ID + " (" + g.Account + "@" + g.Target + ")"
			}
			if len(mine) == 0 {
				return "", usage("you have no grant to give back")
			}
			return "", usage("which one? you have %s", strings.Join(names, ", "))
		}
		id = mine[0].ID
	case 1:
		id = clipped(args[0])
	default:
		return "", usage("done takes one grant")
	}
	g, err := c.handler.Grants.Release(c.ctx, c.proof.identity, id)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s: %s@%s is given back.\n", g.ID, shown(g.Account), shown(g.Target)), nil
}

// ownGrants are the user's grants that give access, or will when they are used.
func (c *connection) ownGrants() (mine []grant.Grant, err error) {
	all, err := c.handler.Grants.List(c.ctx, c.proof.identity, false)
	if err != nil {
		return nil, errors.Join(errors.New("list grants"), err)
	}
	for _, g := range all {
		if g.Identity.Key() == c.proof.identity.Key() && (g.State == grant.Active || g.State == grant.Approved) {
			mine = append(mine, g)
		}
	}
	return mine, nil
}

// greeting is who the user is, what they may reach, and how.
func (c *connection) greeting() (string, error) {
	who := c.proof.identity
	offers, err := c.handler.Grants.Offers(c.ctx, who)
	if err != nil {
		return "", fmt.Errorf("list offers: %w", err)
	}
	mine, err := c.ownGrants()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Signed in as %s", shown(who.Label()))
	if who.Email != "" && who.Email != who.Label() {
		fmt.Fprintf(&b, " (%s)", shown(who.Email))
	}
	fmt.Fprintf(&b, " until %s.\n", who.Expires.Local().Format("2006-01-02 15:04 MST"))
	for i, g := range mine {
		if i == 0 {
			b.WriteString("\nYour grants:\n")
		}
		until := "not used yet"
		if g.State == grant.Active {
			until = "until " + g.Until.Local().Format("15:04 MST")
		}
		fmt.Fprintf(&b, "  %-32s %s  %s\n", shown(g.Account+"@"+g.Target), g.ID, until)
	}
	ssh := 0
	for _, o := range offers {
		if o.Kind != configs.KindSSH {
			continue
		}
		if ssh++; ssh == 1 {
			b.WriteString("\nYou may ask for:\n")
		}
		how := "approved by policy"
		if !o.Auto {
			how = "approved by " + o.ApprovedBy()
		}
		fmt.Fprintf(&b, "  %-32s up to %s, %s\n", shown(o.Account+"@"+o.Target), o.MaxDuration, shown(how))
	}
	if ssh == 0 {
		b.WriteString("\nThere is no SSH target that you may ask for.\n")
		return b.String(), nil
	}
	fmt.Fprintf(&b, "\nAsk with:      ssh %[1]s request ACCOUNT@TARGET 30m REASON…, or sallyport request ACCOUNT@TARGET --duration 30m --reason \"…\"\n", shown(c.handler.Host))
	fmt.Fprintf(&b, "Connect with:  ssh ACCOUNT@TARGET@%s\n", shown(c.handler.Host))
	return b.String(), nil
}
