package interpret

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

// sealed is what a Sealer makes of events: all that is for those who can open everything, and what others see.
func sealed(events []format.Event, placeholder string) (whole, others []format.Event) {
	s := NewSealer(placeholder)
	for _, e := range events {
		s.Seal(e, func(e format.Event) {
			e.Data = bytes.Clone(e.Data)
			switch {
			case e.Type == format.TypeStandIn:
				others = append(others, e.StandsFor())
			case e.Strict:
				e.Strict = false
				whole = append(whole, e)
			default:
				whole, others = append(whole, e), append(others, e)
			}
		})
	}
	return whole, others
}

// pieces cuts what the client said anywhere.
func pieces(events []format.Event, random *rand.Rand) []format.Event {
	var out []format.Event
	for _, e := range events {
		for e.Type == TypeClient && len(e.Data) > 1 {
			n := 1 + random.IntN(len(e.Data)-1)
			part := e
			part.Data, e.Data = e.Data[:n], e.Data[n:]
			out = append(out, part)
			if random.IntN(4) == 0 {
				break
			}
		}
		out = append(out, e)
	}
	return out
}

func said(events []format.Event) (all []byte) {
	for _, e := range events {
		if e.Type == TypeClient {
			all = append(all, e.Data...)
		}
	}
	return all
}

// TestSealerOnRealConversations states that nothing is lost or changed for those who can open everything, and that others see the same
// statements with the same results, and a placeholder for each value.
func TestSealerOnRealConversations(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const placeholder = "[sealed for: age1abc]"
	params, replaced := 0, 0
	for file, events := range transcripts(t) {
		for range 2 {
			cut := pieces(events, random)
			whole, others := sealed(cut, placeholder)
			if !bytes.Equal(said(whole), said(events)) {
				t.Fatalf("%s: other bytes", file)
			}
			full, partial := interpretAll(events), interpretAll(others)
			statements := func(items []item.Item) (list []string) {
				for _, it := range items {
					if it.Kind == item.Statement || it.Kind == item.Result {
						list = append(list, fmt.Sprint(it.Kind, it.Ref, it.SQL, it.Tag, it.SQLState, it.Error, it.Via))
					}
				}
				return list
			}
			if a, b := statements(full), statements(partial); !reflect.DeepEqual(a, b) {
				t.Fatalf("%s: others see\n%s\nnot\n%s", file, strings.Join(b, "\n"), strings.Join(a, "\n"))
			}
			for _, it := range full {
				params += len(it.Params)
			}
			for _, it := range partial {
				for n, p := range it.Params {
					if n < placeholders && p.Text != placeholder {
						t.Fatalf("%s: others see the value %+v", file, p)
					}
					replaced++
				}
			}
		}
	}
	if params == 0 || replaced != params {
		t.Errorf("%d values, %d placeholders", params, replaced)
	}
}

// TestSealerHidesValues states that no value of a Bind, a function call or COPY is in what others see, also of large ones in pieces and
// of bytes that are no messages.
func TestSealerHidesValues(t *testing.T) {
	const secret = "4111111111111111"
	bind := message('B', "\x00stmt\x00\x00\x00\x00\x01\x00\x00\x00\x10"+secret+"\x00\x00")
	large := message('B', "p\x00s\x00\x00\x01\x00\x00\x00\x01\x00\x02\x00\x00"+strings.Repeat(secret, 8192)+"\x00\x00")
	copied := message('d', secret+"\tx\n")
	broken := append([]byte{'Q', 0, 0, 0, 1}, secret...)
	for name, data := range map[string][]byte{"bind": bind, "large": large, "copy": bytes.Repeat(copied, 3), "broken": broken, "function": message('F', "\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x10"+secret+"\x00\x00")} {
		all := append(message('Q', "select 1\x00"), data...)
		for size := 1; size <= len(all); size = size*7 + 1 {
			var events []format.Event
			for rest := all; len(rest) > 0; {
				n := min(size, len(rest))
				events, rest = append(events, format.Event{Type: TypeClient, Data: rest[:n]}), rest[n:]
			}
			whole, others := sealed(events, "[sealed]")
			if !bytes.Equal(said(whole), all) {
				t.Errorf("%s in pieces of %d: other bytes", name, size)
			}
			seen := said(others)
			if bytes.Contains(seen, []byte("11111")) || !bytes.HasPrefix(seen, message('Q', "select 1\x00")) {
				t.Errorf("%s in pieces of %d: others see %.200q", name, size, seen)
			}
			if f := new(frames); name != "broken" && !f.feed(seen, func(frame) {}) {
				t.Errorf("%s in pieces of %d: others see no messages", name, size)
			}
		}
	}
}

func FuzzSealer(f *testing.F) {
	f.Add(append(message('B', "\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01x\x00\x00"), message('S', "")...), 3)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		var events []format.Event
		for rest := data; len(rest) > 0; {
			n := min(max(1, size&63), len(rest))
			events, rest = append(events, format.Event{Type: TypeClient, Data: rest[:n]}), rest[n:]
		}
		if whole, _ := sealed(events, "[sealed]"); !bytes.Equal(said(whole), data) {
			t.Fatal("other bytes")
		}
	})
}
