package terminal

import (
	"strconv"
	"strings"
)

// pen is how characters are painted: what colour sequences (SGR; ECMA-48, 8.3.117, and xterm's) have come to.
type pen struct {
	front, back string // as a sequence's numbers; "" is the terminal's own
	look        uint16 // bit n is on after number n, 1 to 9: bold, faint, italic, underlined, …
}

// take follows a whole sequence that ends in m.
func (p *pen) take(seq []byte) {
	numbers := strings.Split(string(seq[2:len(seq)-1]), ";")
	for len(numbers) > 0 {
		text := numbers[0]
		whole, _, parts := strings.Cut(text, ":")
		n, err := strconv.Atoi(whole)
		used := 1
		switch {
		case text == "" || n == 0 && err == nil:
			*p = pen{}
		case err != nil:
		case n == 38 || n == 48:
			if !parts && len(numbers) > 2 && numbers[1] == "5" {
				used = 3
			} else if !parts && len(numbers) > 4 && numbers[1] == "2" {
				used = 5
			}
			colour := strings.Join(numbers[:used], ";")
			if n == 38 {
				p.front = colour
			} else {
				p.back = colour
			}
		case n <= 9:
			p.look |= 1 << n
		case n == 22:
			p.look &^= 1<<1 | 1<<2
		case n >= 23 && n <= 29:
			p.look &^= 1 << (n - 20)
			if n == 25 {
				p.look &^= 1 << 6
			}
		case n >= 30 && n <= 37, n >= 90 && n <= 97:
			p.front = text
		case n >= 40 && n <= 47, n >= 100 && n <= 107:
			p.back = text
		case n == 39:
			p.front = ""
		case n == 49:
			p.back = ""
		}
		numbers = numbers[used:]
	}
}

// sequence makes another pen this one.
func (p *pen) sequence() string {
	numbers := []string{"0"}
	for n := 1; n <= 9; n++ {
		if p.look&(1<<n) != 0 {
			numbers = append(numbers, strconv.Itoa(n))
		}
	}
	for _, colour := range []string{p.front, p.back} {
		if colour != "" {
			numbers = append(numbers, colour)
		}
	}
	return "\x1b[" + strings.Join(numbers, ";") + "m"
}
