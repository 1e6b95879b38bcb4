package terminal

import "strings"

// Line is the line that the cursor is in, as text: what stands before the cursor, and what stands there and behind. A line that
// was too long for a row and goes on in the next is taken together from the first row on, so this is for a picture that
// was begun where the line begins.
func (p *Picture) Line() (before, after string) {
	p.show()
	screen := p.emulator()
	at := screen.CursorPosition()
	width, height := p.Size()
	var rows strings.Builder
	cursor, last := 0, 0
	for y := range height {
		for x := range width {
			if y == at.Y && x == at.X {
				cursor = rows.Len()
			}
			if cell := screen.CellAt(x, y); cell != nil { // one without content is the rest of a wide character
				rows.WriteString(cell.Content)
				if strings.TrimSpace(cell.Content) != "" {
					last = rows.Len()
				}
			}
		}
	}
	text := rows.String()
	return text[:cursor], text[cursor:max(cursor, last)]
}
