package browser

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
)

// download clicks what gives a file away, and returns the file.
func (p *person) download(selector string) string {
	p.t.Helper()
	directory := p.t.TempDir()
	info := chromedp.FromContext(p.ctx)
	_, err := chromedp.Call(p.ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: "allow", DownloadPath: directory, BrowserContextID: info.BrowserContextID,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.do("download", chromedp.Click(selector))
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(directory, "*"))
		if err != nil {
			p.t.Fatal(err)
		}
		for _, file := range files {
			if info, err := os.Stat(file); err == nil && info.Size() > 0 && !strings.HasSuffix(file, ".crdownload") {
				return file
			}
		}
		if time.Now().After(deadline) {
			p.shoot("failed")
			p.t.Fatalf("no file came: %v\n%s", files, p.text())
		}
	}
}
