package browser

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// access has Alice ask for a target, and Bob say yes.
func access(alice, bob *person, target, account string) {
	alice.t.Helper()
	alice.ask(target, account, "INC-9: a long night")
	bob.open("/console/inbox")
	bob.do("approve", chromedp.Click(".card button.primary"), chromedp.WaitVisible(".done"))
}

// finds searches for a word in a terminal, and returns the address of the place and how many seconds into the session it is.
func (p *person) finds(word string) (string, float64) {
	p.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		ctx, done := context.WithTimeout(p.ctx, 5*time.Minute) // what is not indexed yet is read
		err := chromedp.Do(ctx, chromedp.Navigate(p.demo.url+"/console/search?text="+word), chromedp.WaitReady("main"))
		done()
		if err != nil {
			p.t.Fatalf("search: %v", err)
		}
		found, err := chromedp.Run(p.ctx, chromedp.Evaluate[[]string](`[...document.querySelectorAll(".found a")].map((a) => a.getAttribute("href"))`))
		if err != nil || time.Now().After(deadline) {
			p.t.Fatalf("%s is not found: %v\n%s", word, err, p.text())
		}
		if len(found) == 0 {
			continue
		}
		place, err := url.Parse(found[0])
		if err != nil {
			p.t.Fatal(err)
		}
		at, err := strconv.ParseFloat(place.Query().Get("t"), 64)
		if err != nil {
			p.t.Fatalf("the search leads to %s: %v", place, err)
		}
		return found[0], at
	}
}

// TestLarge plays a terminal of tens of MiB, which the player gets in pieces: it opens at a place in the middle that a search
// found, goes from there to the beginning and to the end, and shows each time what was painted there; its marker is the command.
func TestLarge(t *testing.T) {
	d := startDemo(t)
	d.pin(t, d.url)
	d.pin(t, provider(t, d))
	browser, shots := newBrowser(t, d), screenshots(t)
	alice := newPerson(t, browser, d, "alice", shots, 1280, 900)
	bob := newPerson(t, browser, d, "bob", shots, 1280, 900)
	carol := newPerson(t, browser, d, "carol", shots, 1280, 900)
	for _, p := range []*person{alice, bob, carol} {
		p.signIn()
	}
	access(alice, bob, "web-1", "deploy")
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	ssh := start(t, d.as(ctx, "alice", "ssh", "-tt", "-F", filepath.Join(d.homes, "alice", "ssh_config"), "web-1"))
	ssh.shell(t)
	// What is shown stands still for a while after each word, so that a place in between is one of that word.
	const lines, stands = 300_000, 8 // lines of 50 bytes, seconds; the first word stands longer, for when it came is not looked for
	ssh.enter(t, fmt.Sprintf("stty -echo; echo the-$((1))st-word; sleep 15; seq -f 'line %%012.0f of a build that goes on and on' 1 %[1]d; echo the-$((2))nd-word; sleep %[3]d; "+
		"seq -f 'line %%012.0f of a build that goes on and on' %[1]d %[2]d; echo the-$((3))rd-word; sleep %[3]d; exit\n", lines, 2*lines, stands), "the-1st-word")
	select {
	case <-ssh.done:
	case <-time.After(3 * time.Minute):
		t.Fatal("ssh does not end")
	}
	t.Logf("%d MiB of terminal", len(ssh.out.String())>>20)

	// It is found when it is indexed, and given in pieces when it is packed.
	place, second := carol.finds("the-2nd-word")
	if carol.open(place); !carol.player() {
		t.Skip("this gateway was built without the terminal player")
	}
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		carol.open(place)
		if pieces, err := chromedp.Run(carol.ctx, chromedp.Evaluate[bool](`!!document.querySelector("#player[data-segmented]")`)); err == nil && pieces {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("it is not given in pieces: %v\n%s", err, carol.text())
		}
	}
	lasted, err := chromedp.Run(carol.ctx, chromedp.Evaluate[float64](`fetch(document.getElementById("player").dataset.cast).then((r) => r.json()).then((index) => index.duration)`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	path, _, _ := strings.Cut(place, "?")
	carol.open(path)
	carol.waits("the player", `!!document.querySelector("#player .ap-wrapper")`)
	key := func(key string) {
		t.Helper()
		carol.do("key "+key, chromedp.Focus("#player .ap-wrapper"), chromedp.KeyEvent(key))
	}
	key(" ")
	carol.waits("it plays", `document.getElementById("player").dataset.ready === "playing"`)
	key(" ")
	// The player's keys 0 to 9 are tenths of it; a word stands for longer than one.
	seek := func(word string, not ...string) {
		t.Helper()
		middle := map[string]float64{"the-1st-word": 9, "the-2nd-word": second + stands/2, "the-3rd-word": lasted - stands/2}[word]
		digit := strconv.Itoa(int(middle*10/lasted + 0.5))
		began := time.Now()
		key(digit)
		condition := fmt.Sprintf("t.includes(%q)", word)
		for _, n := range not {
			condition += fmt.Sprintf(" && !t.includes(%q)", n)
		}
		carol.waits(word, `(() => { const e = document.querySelector("#player .ap-term, #player .ap-terminal"); const t = e ? e.innerText : ""; return `+condition+`; })()`)
		t.Logf("%s, at %s tenths of %.0f s: shown after %s", word, digit, lasted, time.Since(began).Round(time.Millisecond))
	}
	seek("the-2nd-word", "the-1st-word", "the-3rd-word")
	carol.waits("a marker at the command", `document.querySelectorAll("#player .ap-marker-container").length > 0`)
	carol.shootWindow("large")
	seek("the-1st-word", "line 0", "the-2nd-word")
	seek("the-3rd-word", "the-2nd-word")
	carol.untroubled()
	made(t)
}

// TestFast watches a session that runs thousands of statements a second: the page keeps up, holds a bounded list, says how many
// it left out, and counts all of them.
func TestFast(t *testing.T) {
	d := startDemo(t)
	d.pin(t, d.url)
	d.pin(t, provider(t, d))
	browser, shots := newBrowser(t, d), screenshots(t)
	alice := newPerson(t, browser, d, "alice", shots, 1280, 900)
	bob := newPerson(t, browser, d, "bob", shots, 1280, 900)
	carol := newPerson(t, browser, d, "carol", shots, 1280, 900)
	for _, p := range []*person{alice, bob, carol} {
		p.signIn()
	}
	access(alice, bob, "orders", "app")
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	const batch, batches = 500, 100
	script := filepath.Join(t.TempDir(), "script.sql")
	text := "\\startpipeline\n" + strings.Repeat("SELECT :client_id + 1;\n", batch) + "\\endpipeline\n"
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// The first of psql's statements are seen before the many begin.
	shell := start(t, d.as(ctx, "alice", "sh", "-c", `read go; exec pgbench -n -M extended -c 1 -t "$1" -f "$2" "service=orders"`, "sh", strconv.Itoa(batches), script))
	psql := start(t, d.as(ctx, "alice", "psql", "-X", "service=orders"))
	psql.enter(t, "SELECT 6*7;\n", "42")
	carol.open("/console/sessions")
	began := time.Now()
	shell.enter(t, "go\n", "")
	carol.waits("two sessions", `document.querySelectorAll('#live a[href$="/watch"]').length === 2`)
	carol.do("watch the newest", chromedp.Click(`#live tr a[href$="/watch"]`))
	carol.waits("many statements", `Number(document.getElementById("total").textContent.replaceAll(",", "")) > 2000`)
	slowest := time.Duration(0)
	for {
		asked := time.Now()
		state, err := chromedp.Run(carol.ctx, chromedp.Evaluate[[]float64](`[document.getElementById("stream").childElementCount, Number(document.getElementById("total").textContent.replaceAll(",", ""))]`))
		if err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(asked))
		if state[0] > 200 {
			t.Fatalf("the page holds %v things", state[0])
		}
		if state[1] >= batch*batches {
			break
		}
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("the page has counted %v of %d statements\n%s", state[1], batch*batches, shell.out)
		}
		time.Sleep(50 * time.Millisecond)
	}
	took := time.Since(began)
	t.Logf("%d statements in %s, the page's slowest answer took %s", batch*batches, took.Round(time.Millisecond), slowest.Round(time.Millisecond))
	carol.sees("more, which the recording has")
	carol.waits("the top", `(() => { scrollTo(0, 0); return scrollY === 0; })()`)
	carol.shootWindow("fast")
	carol.untroubled()
	made(t)
}
