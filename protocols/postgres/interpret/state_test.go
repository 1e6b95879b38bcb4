package interpret

import (
	"reflect"
	"testing"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

// Wherever an interpreter has a state, one that goes on with it says the same of what follows.
func TestResume(t *testing.T) {
	states := 0
	for file, events := range transcripts(t) {
		for cut := range events {
			var items []item.Item
			emit := func(i item.Item) { items = append(items, i) }
			first := New(format.Header{})
			for _, e := range events[:cut] {
				first.Interpret(e, emit)
			}
			state, ok := first.State()
			if !ok {
				continue
			}
			states++
			second := New(format.Header{})
			if err := second.Resume(state); err != nil {
				t.Fatal(err)
			}
			rest := func(i *Interpreter) []item.Item {
				items = nil
				for _, e := range events[cut:] {
					i.Interpret(e, emit)
				}
				i.Finish(emit)
				return items
			}
			if want, got := rest(first), rest(second); !reflect.DeepEqual(got, want) {
				t.Errorf("%s, from event %d:\n%+v\n%+v", file, cut, got, want)
			}
		}
	}
	if states < 50 {
		t.Errorf("there were only %d states", states)
	}
	t.Log(states, "states")
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"ref":1,"statements":[{"name":"YQ==","text":"c2VsZWN0IDE="}],"portals":[{"name":"","ref":1}]}`), []byte("E\x00\x00\x00\x09\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, state, data []byte) {
		i := New(format.Header{})
		if i.Resume(state) != nil {
			return
		}
		emit := func(item.Item) {}
		i.Interpret(format.Event{Type: TypeClient, Data: data}, emit)
		i.Interpret(format.Event{Type: TypeServer, Data: data}, emit)
		i.Finish(emit)
	})
}
