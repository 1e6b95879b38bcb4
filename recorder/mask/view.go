package mask

// view is what is seen of some bytes: without the escape sequences that change neither what stands there nor where the next
// character goes.
type view struct {
	text  []byte
	place []int // of each byte of text in the bytes; nil: they are the same
	size  int   // of the bytes
}

const escape = 0x1b

// look makes the view of some bytes.
func look(data []byte) view {
	v := view{text: data, size: len(data)}
	for i := 0; i < len(data); {
		n := 0
		if data[i] == escape {
			n = unseen(data[i:])
		}
		if n > 0 && v.place == nil {
			v.text, v.place = make([]byte, i, len(data)), make([]int, i, len(data))
			copy(v.text, data)
			for at := range v.place {
				v.place[at] = at
			}
		}
		if n > 0 {
			i += n
			continue
		}
		if v.place != nil {
			v.text, v.place = append(v.text, data[i]), append(v.place, i)
		}
		i++
	}
	return v
}

// at is where a byte of the text stands, and after where the bytes go on behind it.
func (v view) at(i int) int {
	if v.place == nil {
		return i
	}
	return v.place[i]
}

func (v view) after(i int) int { return v.at(i) + 1 }

// appendUnseen appends what is not seen of the bytes that the view is of.
func (v view) appendUnseen(to, data []byte) []byte {
	if v.place == nil {
		return to
	}
	next := 0
	for i, c := range data {
		if next < len(v.place) && v.place[next] == i {
			next++
			continue
		}
		to = append(to, c)
	}
	return to
}

// maxSequence bounds an escape sequence that is passed over.
const maxSequence = 256

// unseen is how long an escape sequence is that changes colours, erases to the right, sets a mode or a title; 0 where something else
// stands there, or one that is not whole.
func unseen(data []byte) int {
	data = data[:min(len(data), maxSequence)]
	if len(data) < 3 {
		return 0
	}
	switch data[1] {
	case '[':
		for i, c := range data[2:] {
			switch {
			case c >= 0x20 && c <= 0x3f:
			case c == 'm' || c == 'K' || c == 'h' || c == 'l':
				return i + 3
			default:
				return 0
			}
		}
	case ']':
		for i, c := range data[2:] {
			switch {
			case c == '\a':
				return i + 3
			case c == '\\' && data[i+1] == escape:
				return i + 3
			}
		}
	case '(', ')':
		return 3
	}
	return 0
}

// unfinished is where an escape sequence begins that goes on behind the end; the length where none does.
func unfinished(data []byte) int {
	for i := len(data) - 1; i >= max(0, len(data)-maxSequence); i-- {
		if data[i] != escape {
			continue
		}
		if i == len(data)-1 {
			return i
		}
		rest := data[i+2:]
		switch data[i+1] {
		case '[':
			for _, c := range rest {
				if c < 0x20 || c > 0x3f {
					return len(data)
				}
			}
			return i
		case ']':
			for at, c := range rest {
				if c == '\a' || c == escape && at+1 < len(rest) && rest[at+1] == '\\' {
					return len(data)
				}
			}
			return i
		case '(', ')':
			if len(rest) == 0 {
				return i
			}
		}
		return len(data)
	}
	return len(data)
}
