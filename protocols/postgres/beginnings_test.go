package postgres

import (
	"strings"
	"testing"

	"sallyport/recorder/format"
	"sallyport/recorder/mask"
)

// TestNoPartOfACardIsLeft: where a refused statement is cut within a card's number, what is recorded of it has no part that is not masked
// when it is shown; where it is cut elsewhere, the recording has what was said.
func TestNoPartOfACardIsLeft(t *testing.T) {
	m, err := mask.New(&format.Mask{Cards: true})
	if err != nil {
		t.Fatal(err)
	}
	for at := range 260 {
		whole := "SELECT '" + strings.Repeat("x", at) + " 4111111111111111'" + strings.Repeat(" ", 300)
		recorded, told := beginnings(whole, m.Text)
		for name, text := range map[string]string{"recorded": m.Text(recorded), "told": told} {
			if strings.Contains(text, "4111") {
				t.Errorf("%d: %s: %q", at, name, text)
			}
		}
		if before := at < 170; before && recorded != whole[:200] {
			t.Errorf("%d: recorded %q", at, recorded)
		}
	}
}
