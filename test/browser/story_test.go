package browser

import (
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestStory: Alice asks, Bob approves on his phone, Alice works with the stock programs, Carol sees, finds, replays and
// kills, all in a browser.
func TestStory(t *testing.T) {
	d := startDemo(t)
	d.pin(t, d.url)
	d.pin(t, provider(t, d))
	browser, shots := newBrowser(t, d), screenshots(t)
	alice := newPerson(t, browser, d, "alice", shots, 1280, 900)
	bob := newPerson(t, browser, d, "bob", shots, 390, 844)
	carol := newPerson(t, browser, d, "carol", shots, 1280, 900)

	alice.signIn()
	alice.sees("To the first recorded session", "A target is configured", "app@orders")
	alice.accessible()
	alice.shoot("first-visit")
	alice.ask("orders", "app", "INC-42: slow checkout "+hostile)
	alice.shoot("asked")
	alice.ask("web-1", "deploy", "INC-42: look at the logs")
	alice.open("/console/")
	alice.sees("What you wait for")
	alice.shoot("waiting")

	bob.signIn()
	bob.open("/console/inbox")
	bob.sees("app@orders", "deploy@web-1", "INC-42: slow checkout "+hostile, "Alice", "30 min")
	bob.fits()
	bob.accessible()
	bob.shoot("inbox")
	bob.dark(true)
	bob.shoot("inbox-dark")
	bob.dark(false)
	for range 2 {
		bob.do("approve", chromedp.SendKeys(`.card input[name="comment"]`, "go ahead"), chromedp.Click(".card button.primary"), chromedp.WaitVisible(".done"))
		bob.sees("Approved.")
	}
	bob.sees("Nothing waits for you")
	bob.fits()
	bob.shoot("inbox-empty")

	alice.sees("ready to use", "psql service=orders", "ssh web-1") // her page looked again by itself
	alice.shoot("granted")

	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	psql := start(t, d.as(ctx, "alice", "psql", "-X", "service=orders"))
	psql.enter(t, "SELECT 6*7 AS answer;\n", "42")
	psql.enter(t, "CREATE TABLE story (id int, what text);\nINSERT INTO story VALUES (1, 'needle "+hostile+"');\n", "INSERT 0 1")
	psql.enter(t, "SELECT * FROM nowhere;\n", "does not exist")
	psql.enter(t, "SELECT pg_sleep(0.2), 'slept' AS w;\n", "slept")
	ssh := start(t, d.as(ctx, "alice", "ssh", "-tt", "-F", filepath.Join(d.homes, "alice", "ssh_config"), "web-1"))
	ssh.shell(t)
	ssh.enter(t, "echo terminal-needle $((6*7)); printf '\\033[1;32mgreen\\033[0m\\n'\n", "terminal-needle 42")
	ssh.enter(t, "echo '"+hostile+"'; echo all-$((1+1))\n", "all-2")

	alice.open("/console/")
	alice.sees("in use", "left, until")
	alice.shoot("in-use")

	carol.signIn()
	carol.open("/console/sessions")
	carol.sees("Live 2", "app@orders", "deploy@web-1", "Alice")
	carol.fits()
	carol.shoot("sessions")
	carol.dark(true)
	carol.shoot("sessions-dark")
	carol.dark(false)

	carol.sees("pg_sleep", "commands") // the list tells how they go
	carol.waits("the time that is left", `[...document.querySelectorAll("[data-left]")].every((e) => /min/.test(e.textContent))`)
	carol.shoot("live")
	carol.accessible()

	carol.do("watch the database session", chromedp.Click(`//tr[contains(., "app@orders")]//a[.="Watch"]`), chromedp.WaitVisible("#stream li"))
	psql.enter(t, "UPDATE story SET what = 'watched needle' WHERE id = 1;\n", "UPDATE 1")
	carol.sees("watched needle", "UPDATE 1", "write", "needle "+hostile)
	carol.accessible()
	carol.shoot("watching")
	carol.open("/console/sessions")
	carol.do("watch the terminal", chromedp.Click(`//tr[contains(., "deploy@web-1")]//a[.="Watch"]`))
	player := carol.player()
	if player {
		carol.do("the terminal is there", chromedp.WaitVisible(`#screen[data-ready="playing"]`))
		ssh.enter(t, "echo live-$((20+1))\n", "live-21")
		carol.sees("live-21")
		carol.shoot("watching-terminal")
	}
	carol.open("/console/sessions")

	carol.do("open the database session", chromedp.Click(`//div[@id="live"]//a[contains(., "app@orders")]`), chromedp.WaitVisible(".timeline"))
	carol.sees("SELECT 6*7 AS answer", "CREATE TABLE story", "needle "+hostile, "does not exist")
	carol.shoot("timeline")
	carol.dark(true)
	carol.shoot("timeline-dark")
	carol.dark(false)
	carol.do("only errors", chromedp.SetValue("#show", "errors"), chromedp.Click(".filter button"))
	carol.waits("no statement that went well", `!document.body.innerText.includes("CREATE TABLE story") && document.readyState === "complete"`)
	carol.sees("does not exist")
	carol.shoot("timeline-errors")

	carol.open("/console/search?text=NEEDLE")
	carol.sees("needle "+hostile, "terminal-needle 42", "app@orders", "deploy@web-1")
	carol.shoot("search")
	carol.do("jump to the moment", chromedp.Click(`//li[contains(., "INSERT INTO story")]//a`), chromedp.WaitVisible(".timeline .hit"))
	carol.open("/console/search?text=terminal-needle+42")
	carol.do("jump into the terminal", chromedp.Click(`.found a`), chromedp.WaitVisible("#player"))
	if carol.player() {
		carol.do("the terminal plays to its end", chromedp.WaitVisible(`#player[data-ready="ended"]`))
	}
	carol.shoot("terminal")
	carol.sees("Terminal", "Timeline")

	carol.open("/console/sessions")
	carol.do("kill", chromedp.Click(`//tr[contains(., "app@orders")]//summary`),
		chromedp.SendKeys(`//tr[contains(., "app@orders")]//input[@name="comment"]`, "that is enough"),
		chromedp.Click(`//tr[contains(., "app@orders")]//button[contains(@class, "danger")]`), chromedp.WaitVisible(".done"))
	carol.sees("The session is cut.", "killed", "that is enough", "whole", "checkpoint over")
	carol.waits("the badge follows the witness without a reload", `document.body.innerText.includes("whole, and witnessed")`)
	carol.do("what it was checked against", chromedp.Click(".proof summary"))
	carol.sees("names this chain and is in the root")
	carol.accessible()
	carol.shoot("killed")
	bundle := carol.download(`form[action$="/evidence"] button`)
	keys := []string{filepath.Join(filepath.Dir(d.homes), "keys", "log.pub"), filepath.Join(filepath.Dir(d.homes), "witness", "key.pub")}
	if said, err := exec.Command(d.binary+"-verify", bundle, "--log-key", keys[0], "--witness-key", keys[1]).CombinedOutput(); err != nil {
		t.Errorf("the evidence does not verify: %v\n%s", err, said)
	}
	if _, err := io.WriteString(psql.in, "SELECT 1;\n\\q\n"); err != nil {
		t.Logf("psql has gone: %v", err)
	}
	select {
	case <-psql.done:
	case <-time.After(patience):
		t.Error("psql did not notice")
	}
	if said := psql.out.String(); !strings.Contains(said, "that is enough") {
		t.Errorf("psql was not told why:\n%s", said)
	}

	carol.open("/console/audit")
	carol.sees("session.killed", "recording.replayed", "recording.searched", "grant.approved")
	carol.shoot("audit")
	carol.open("/console/verify")
	carol.do("verify", chromedp.Click("button.primary"), chromedp.WaitVisible(".verdict"))
	carol.sees("The log is whole")
	carol.shoot("verify")

	alice.open("/console/audit")
	alice.sees("You do not have the permission recordings.read")
	alice.shoot("refused")
	alice.open("/console/")
	alice.do("give back", chromedp.Click(`//article[contains(., "app@orders")]//button[.="Give back"]`), chromedp.WaitVisible(".done"))
	alice.sees("Given back.")
	alice.do("sign out", chromedp.Click(".who button"), chromedp.WaitVisible("a.button"))
	alice.sees("You are signed out")
	alice.open("/console/")
	alice.sees("Sign in to the console")

	bob.open("/console/sessions")
	bob.fits()
	bob.shoot("sessions-phone")
	if player {
		made(t)
	}
	for _, p := range []*person{alice, bob, carol} {
		p.untroubled()
	}
}
