package browser

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// hostile is what people and programs write that a console must show and not obey.
const hostile = `<img src=x onerror=alert(1)><script>alert(2)</script>"><svg onload=alert(3)>`

// patience is how long a page may take to be as it should.
const patience = 90 * time.Second

// person is somebody in front of a browser window of their own.
type person struct {
	t       *testing.T
	demo    *demo
	name    string
	ctx     context.Context
	shots   string
	mu      sync.Mutex
	strange []string // what the browser complained about
}

func newBrowser(t *testing.T, d *demo) context.Context {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("there is no chromium on this machine: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("ignore-certificate-errors-spki-list", strings.Join(d.pins, ",")))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	browser, stop := chromedp.NewContext(allocator)
	t.Cleanup(stop)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return browser
}

func newPerson(t *testing.T, browser context.Context, d *demo, name, shots string, width, height int64) *person {
	t.Helper()
	ctx, stop := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(stop)
	p := &person{t: t, demo: d, name: name, ctx: ctx, shots: shots}
	err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *page.EventJavascriptDialogOpening:
			p.note("a dialog opened: " + e.Message)
		case *runtime.EventExceptionThrown:
			p.note(fmt.Sprintf("a script failed: %s %s:%d", e.ExceptionDetails.Text, e.ExceptionDetails.URL, e.ExceptionDetails.LineNumber))
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
				p.note("the browser complained: " + e.Entry.Text)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	p.do("begin", chromedp.EmulateViewport(width, height))
	return p
}

func (p *person) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.strange = append(p.strange, what)
}

// untroubled insists that no script ran that should not have, and that the console kept its own policy.
func (p *person) untroubled() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.strange {
		p.t.Errorf("%s: %s", p.name, s)
	}
}

func (p *person) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, stop := context.WithTimeout(p.ctx, patience)
	defer stop()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.shoot("failed")
		p.untroubled()
		p.t.Fatalf("%s, %s: %v\n%s", p.name, what, err, p.text())
	}
}

func (p *person) open(path string) {
	p.t.Helper()
	p.do("open "+path, chromedp.Navigate(p.demo.url+path), chromedp.WaitReady("main"))
}

// text is what the page says.
func (p *person) text() string {
	ctx, stop := context.WithTimeout(p.ctx, patience)
	defer stop()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
	if err != nil {
		return err.Error()
	}
	return text
}

// sees waits until the page says all of it.
func (p *person) sees(phrases ...string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		text, missing := p.text(), ""
		for _, phrase := range phrases {
			if !strings.Contains(text, phrase) {
				missing = phrase
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			p.shoot("failed")
			p.t.Fatalf("%s does not see %q in:\n%s", p.name, missing, text)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// waits until an expression is true on the page.
func (p *person) waits(what, expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		// While the browser goes from one page to the next there is nothing to ask.
		if so, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](expression)); err == nil && so {
			return
		} else if time.Now().After(deadline) {
			p.shoot("failed")
			p.t.Fatalf("%s waits in vain for: %s (%v)\n%s", p.name, what, err, p.text())
		}
	}
}

// shoot takes a picture of the whole page, to be looked at by people.
func (p *person) shoot(name string) {
	p.t.Helper()
	p.picture(name, chromedp.FullScreenshot(100))
}

// shootWindow takes one of what is to be seen without scrolling.
func (p *person) shootWindow(name string) {
	p.t.Helper()
	p.picture(name, chromedp.CaptureScreenshot())
}

func (p *person) picture(name string, how chromedp.Action[[]byte]) {
	p.t.Helper()
	ctx, stop := context.WithTimeout(p.ctx, patience)
	defer stop()
	picture, err := chromedp.Run(ctx, how)
	if err != nil {
		p.t.Errorf("picture %s: %v", name, err)
		return
	}
	file := p.name + "-" + name + ".png"
	if err := os.WriteFile(filepath.Join(p.shots, file), picture, 0o600); err != nil {
		p.t.Error(err)
	}
	if taken.Store(file, true); documented[file] == "" {
		return
	}
	if err := os.MkdirAll(docs, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(docs, file), picture, 0o600); err != nil {
		p.t.Error(err)
	}
}

// fits insists that nothing is wider than the window.
func (p *person) fits() {
	p.t.Helper()
	over, err := chromedp.Run(p.ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth - document.documentElement.clientWidth`))
	if err != nil {
		p.t.Fatal(err)
	}
	if over > 0 {
		p.shoot("too-wide")
		p.t.Errorf("%s's page is %d pixels wider than the window", p.name, over)
	}
}

func (p *person) dark(on bool) {
	p.t.Helper()
	value := "light"
	if on {
		value = "dark"
	}
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}},
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) signIn() {
	p.t.Helper()
	p.open("/console/")
	p.shoot("sign-in")
	p.do("sign in", chromedp.Click("a.button"), chromedp.WaitVisible(`input[name="name"]`),
		chromedp.SendKeys(`input[name="name"]`, p.name), chromedp.SendKeys(`input[name="password"]`, p.demo.passwords[p.name]),
		chromedp.Submit(`input[name="password"]`), chromedp.WaitVisible("nav"))
}

func (p *person) ask(target, account, reason string) {
	p.t.Helper()
	p.open("/console/")
	p.do("ask", chromedp.Click(fmt.Sprintf(`a[aria-label="Ask for %s@%s"]`, account, target)), chromedp.WaitVisible("#reason"))
	p.shoot("ask-" + target)
	p.do("ask", chromedp.SetValue("#duration", "30m"), chromedp.SendKeys("#reason", reason), chromedp.Click("button.primary"), chromedp.WaitVisible(".done"))
	p.sees("Your request is filed.", "waits for approval", reason)
}

// program is a stock client that runs, with its input open.
type program struct {
	in   io.WriteCloser
	out  *safeBuffer
	done chan error
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T, command *exec.Cmd) *program {
	t.Helper()
	p := &program{out: &safeBuffer{}, done: make(chan error, 1)}
	command.Stdout, command.Stderr = p.out, p.out
	var err error
	if p.in, err = command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- command.Wait() }()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		p.in.Close()
	})
	return p
}

// enter types and waits for an answer.
func (p *program) enter(t *testing.T, text, answer string) {
	t.Helper()
	if _, err := io.WriteString(p.in, text); err != nil {
		t.Fatalf("%v after:\n%s", err, p.out)
	}
	deadline := time.Now().Add(patience)
	for !strings.Contains(p.out.String(), answer) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in:\n%s", answer, p.out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// shell waits until the shell reads what is typed: what is typed before may be lost to it.
func (p *program) shell(t *testing.T) {
	t.Helper()
	const answer = "shell-42"
	for deadline := time.Now().Add(patience); !strings.Contains(p.out.String(), answer); {
		if time.Now().After(deadline) {
			t.Fatalf("there is no shell:\n%s", p.out)
		}
		if _, err := io.WriteString(p.in, "echo shell-$((6*7))\n"); err != nil {
			t.Fatalf("%v after:\n%s", err, p.out)
		}
		for again := time.Now().Add(2 * time.Second); time.Now().Before(again) && !strings.Contains(p.out.String(), answer); {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// screenshots is where the pictures go.
func screenshots(t *testing.T) string {
	t.Helper()
	shots := os.Getenv("SALLYPORT_SCREENSHOTS")
	if shots == "" {
		shots = "pictures" // beside this file, and not in the repository
	}
	if err := os.MkdirAll(shots, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Logf("the pictures are in %s", shots)
	return shots
}

// player says whether this gateway was built with the terminal player; the page is one that would have it.
func (p *person) player() bool {
	p.t.Helper()
	p.waits("the page", `document.readyState === "complete"`)
	return !strings.Contains(p.text(), "was built without the terminal player")
}

// accessible runs axe on the page (npm's axe-core, where it was fetched) and takes nothing that it finds.
func (p *person) accessible() {
	p.t.Helper()
	axe, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	if os.IsNotExist(err) {
		p.t.Log("axe-core is not there: npm ci in test/browser")
		return
	}
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(p.ctx, patience)
	defer stop()
	type violation struct{ ID, Impact, Help, Nodes string }
	found, err := chromedp.Run(ctx, chromedp.Evaluate[[]violation](string(axe)+`;
		axe.run(document, { resultTypes: ["violations"] }).then((r) => r.violations.map((v) => ({
			ID: v.id, Impact: v.impact, Help: v.help, Nodes: v.nodes.slice(0, 3).map((n) => n.html + " " + (n.any[0] || n.all[0] || n.none[0] || {}).message).join("\n") })))`,
		chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("axe: %v", err)
	}
	for _, v := range found {
		p.t.Errorf("%s's page %s: %s (%s): %s\n%s", p.name, p.title(), v.ID, v.Impact, v.Help, v.Nodes)
	}
}

func (p *person) title() string {
	title, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`document.title + " " + location.pathname`))
	if err != nil {
		return err.Error()
	}
	return title
}

// provider finds out where the gateway sends those who sign in.
func provider(t *testing.T, d *demo) string {
	t.Helper()
	out, err := exec.Command("curl", "--silent", "--show-error", "--max-time", "20", "--cacert", filepath.Join(filepath.Dir(d.homes), "ca.pem"),
		"--location", "--cookie-jar", filepath.Join(t.TempDir(), "jar"), "--output", os.DevNull, "--write-out", "%{url_effective}",
		d.url+"/console/sign-in/start").Output()
	if err != nil || !bytes.HasPrefix(out, []byte("https://")) {
		t.Fatalf("where the sign-in leads: %q, %v", out, err)
	}
	return string(out)
}
