package live

import (
	"testing"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
	"sallyport/recorder/mask"
	"sallyport/recorder/terminal"
)

// TestTheLastLineIsMaskedWhole: the list of live sessions hides in the line that a shell showed last what only the whole line has.
func TestTheLastLineIsMaskedWhole(t *testing.T) {
	m, err := mask.New(&format.Mask{Cards: true})
	if err != nil {
		t.Fatal(err)
	}
	p := &Pulse{mask: m.Text, lines: map[uint32]*terminal.Lines{}}
	p.take(item.Item{Kind: item.Command, Channel: 1, Via: "shell"})
	p.take(item.Item{Kind: item.Output, Channel: 1, Stream: "stdout", Data: []byte("$ pay 4111 1111 1111 111x\b1\r\n")})
	if want := "$ pay [card ••••••••1111]"; p.last != want {
		t.Errorf("the last line is %q, want %q", p.last, want)
	}
}
