package browser

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// corpus is what has run as a script somewhere, by the context that it breaks out of.
var corpus = []string{
	`<script>alert(1)</script>`,
	`</code></pre><img src=x onerror=alert(2)>`,
	`"><svg/onload=alert(3)>`,
	`' autofocus onfocus=alert(4) x='`,
	`javascript:alert(5)`,
	`</title><script>alert(6)</script>`,
	`{{alert(7)}}${alert(8)}#{alert(9)}`,
	`<iframe srcdoc="<script>alert(10)</script>">`,
	`<math><mtext><table><mglyph><style><img src=x onerror=alert(11)>`,
	`<a href="data:text/html,<script>alert(12)</script>">x</a>`,
	`--></noscript><style>*{display:none}</style>`,
	`&lt;img src=x onerror=alert(13)&gt;`,
}

// TestPages opens every page of everybody's with hostile text in all of it, at the width of a desk and of a phone, light and
// dark: nothing runs, nothing is wider than the window, axe finds nothing, and a picture stays of each.
func TestPages(t *testing.T) {
	d := startDemo(t)
	d.pin(t, d.url)
	d.pin(t, provider(t, d))
	browser, shots := newBrowser(t, d), screenshots(t)
	all := strings.Join(corpus, " ")
	alice := newPerson(t, browser, d, "alice", shots, 1280, 900)
	bob := newPerson(t, browser, d, "bob", shots, 1280, 900)
	carol := newPerson(t, browser, d, "carol", shots, 1280, 900)
	for _, p := range []*person{alice, bob, carol} {
		p.signIn()
	}
	// A first visit: nothing has happened yet.
	for _, one := range []struct {
		p          *person
		name, path string
	}{
		{alice, "access", "/console/"}, {alice, "sessions", "/console/sessions"}, {alice, "grants", "/console/grants"}, {alice, "policies", "/console/policies"},
		{bob, "inbox", "/console/inbox"}, {carol, "access", "/console/"}, {carol, "sessions", "/console/sessions"}, {carol, "search", "/console/search"},
		{carol, "search-in-vain", "/console/search?text=nothing-like-this"}, {carol, "audit", "/console/audit?kind=none"}, {carol, "verify", "/console/verify"},
		{carol, "health", "/console/health"},
	} {
		one.p.look("empty-"+one.name, one.path)
	}

	alice.ask("orders", "app", "INC-1 "+all)
	alice.ask("web-1", "deploy", "INC-2 "+all)
	bob.look("waiting", "/console/inbox")
	alice.look("waiting", "/console/")
	for range 2 {
		bob.open("/console/inbox")
		bob.do("approve", chromedp.SendKeys(`.card input[name="comment"]`, "yes "+all), chromedp.Click(".card button.primary"), chromedp.WaitVisible(".done"))
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	command := d.as(ctx, "alice", "psql", "-X", "service=orders")
	command.Env = append(command.Env, "PGAPPNAME="+corpus[1])
	psql := start(t, command)
	for i, text := range corpus {
		quoted := strings.ReplaceAll(text, "'", "''")
		psql.enter(t, fmt.Sprintf("SELECT '%s' AS hostile, 'done-'||%d;\n", quoted, i), fmt.Sprintf("done-%d", i))
	}
	psql.enter(t, "CREATE TABLE \""+strings.ReplaceAll(corpus[0], `"`, "")+"\" (x int);\n", "CREATE TABLE")
	psql.enter(t, "SELECT * FROM \"<b>no\";\n", "does not exist")
	ssh := start(t, d.as(ctx, "alice", "ssh", "-tt", "-F", filepath.Join(d.homes, "alice", "ssh_config"), "web-1"))
	ssh.shell(t)
	for i, text := range corpus {
		ssh.enter(t, fmt.Sprintf("echo '%s' said-$((%d+0))\n", strings.ReplaceAll(text, "'", ""), i), fmt.Sprintf("said-%d", i))
	}
	ssh.enter(t, `printf '\033]0;title\007\033]52;c;eA==\007\033[31mred\033[0m all-%s\n' there`+"\n", "all-there")
	file := filepath.Join(t.TempDir(), "<img src=x onerror=alert(14)>.txt")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	scp := d.as(ctx, "alice", "scp", "-F", filepath.Join(d.homes, "alice", "ssh_config"), file, "web-1:/tmp/")
	if out, err := scp.CombinedOutput(); err != nil {
		t.Logf("scp: %v %s", err, out)
	}

	alice.look("in-use", "/console/")
	carol.open("/console/sessions")
	links, err := chromedp.Run(carol.ctx, chromedp.Evaluate[[]string](`[...document.querySelectorAll("td[data-label=Began] a, td[data-label=Where] a")].map((a) => a.getAttribute("href"))`))
	if err != nil || len(links) < 2 {
		t.Fatalf("%v %v", links, err)
	}
	carol.sees("commands")
	carol.look("live", "/console/sessions")
	seen := map[string]bool{}
	for _, link := range links {
		if seen[link] {
			continue
		}
		seen[link] = true
		name := fmt.Sprintf("session-%d", len(seen))
		carol.look(name, link)
		carol.open(link + "/watch")
		if !strings.Contains(carol.text(), "hold still") {
			continue // it is over: that of scp
		}
		carol.waits("what happens", `!!(document.querySelector("#stream li") || document.querySelector("#screen"))`)
		carol.seen(name+"-watch", "")
	}
	carol.look("search", "/console/search?text=alert")
	for _, path := range []string{"/console/audit", "/console/health", "/console/grants", "/console/policies"} {
		carol.look(strings.TrimPrefix(path, "/console/"), path)
	}
	carol.open("/console/verify")
	carol.do("verify", chromedp.Click("button.primary"), chromedp.WaitVisible(".verdict"))
	carol.seen("verify", "")
	bob.look("inbox-done", "/console/inbox")
	stranger := newPerson(t, browser, d, "nobody", shots, 1280, 900)
	stranger.look("sign-in", "/console/")
	grants, err := chromedp.Run(alice.ctx, chromedp.Evaluate[string](`document.querySelector("article.card a").getAttribute("href")`))
	if err != nil {
		t.Fatal(err)
	}
	alice.look("grant", grants)
	bob.look("grant", grants)
	alice.look("refused", "/console/audit")
	alice.look("policies", "/console/policies?target=orders&account=app&duration=30m&reason=x")
	alice.look("ask", "/console/ask?target=orders&account=app")
	alice.do("what can't be", chromedp.SetValue("#duration", "soon"), chromedp.SendKeys("#reason", "INC-3 "+corpus[4]), chromedp.Click("button.primary"), chromedp.WaitVisible(`[role="alert"]`))
	alice.sees("makes no sense")
	alice.seen("ask-refused", "")
	for _, p := range []*person{alice, bob, carol, stranger} {
		p.untroubled()
	}
	made(t)
}

// look opens a page and looks at it in every way.
func (p *person) look(name, path string) {
	p.t.Helper()
	p.open(path)
	p.seen(name, path)
}

// seen looks at the open page in every way; where it has a path, also opened anew at the width of a phone.
func (p *person) seen(name, path string) {
	p.t.Helper()
	for _, size := range []struct {
		name          string
		width, height int64
	}{{"", 1280, 900}, {"-phone", 390, 844}} {
		p.do("another window", chromedp.EmulateViewport(size.width, size.height))
		for _, dark := range []bool{false, true} {
			p.dark(dark)
			p.accessible()
			p.fits()
			shot := "page-" + name + size.name
			if dark {
				shot += "-dark"
			}
			p.shoot(shot)
		}
	}
	p.dark(false)
	p.do("the first window", chromedp.EmulateViewport(1280, 900))
}
