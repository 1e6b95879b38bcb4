package wire

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

func packet(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

func TestReadPacketBoundsTheLength(t *testing.T) {
	for _, length := range []uint32{0, 4, 7, 10_001, 0x7fffffff, 0xffffffff} {
		head := binary.BigEndian.AppendUint32(nil, length)
		if _, err := ReadPacket(bytes.NewReader(append(head, 0, 3, 0, 0))); err == nil || !strings.Contains(err.Error(), "length") {
			t.Errorf("length %d: got %v", length, err)
		}
	}
	largest := packet(Version30, strings.Repeat("x", StartupLimit-8))
	if p, err := ReadPacket(bytes.NewReader(largest)); err != nil || len(p.Body) != StartupLimit-8 {
		t.Errorf("the largest: got %v", err)
	}
	if _, err := ReadPacket(bytes.NewReader(largest[:len(largest)-1])); err == nil {
		t.Error("a packet that breaks off was taken")
	}
}

func TestParams(t *testing.T) {
	tests := []struct {
		body string
		want []Param
		ok   bool
	}{
		{"user\x00bob\x00\x00", []Param{{"user", "bob"}}, true},
		{"user\x00bob\x00user\x00eve\x00\x00", []Param{{"user", "bob"}, {"user", "eve"}}, true},
		{"user\x00\x00\x00", []Param{{"user", ""}}, true},
		{"\x00", nil, true},
		{"user\x00bob\x00", nil, false},           // no end
		{"user\x00bob", nil, false},               // no end of a value
		{"user\x00\x00", nil, false},              // a name without value
		{"user\x00bob\x00\x00x", nil, false},      // something behind the end
		{"\x00\x00user\x00b\x00\x00", nil, false}, // an empty name before the end
		{"", nil, false},
	}
	for _, test := range tests {
		got, err := Packet{Body: []byte(test.body)}.Params()
		if (err == nil) != test.ok || test.ok && !slices.Equal(got, test.want) {
			t.Errorf("%q: got %v, %v", test.body, got, err)
		}
	}
}

func TestAppendStartupRefusesSmuggling(t *testing.T) {
	for _, params := range [][]Param{
		{{"application_name", "x\x00user\x00admin"}}, {{"a\x00b", "c"}}, {{"", "c"}}, {{"x", strings.Repeat("y", StartupLimit)}},
	} {
		if b, err := AppendStartup(nil, params); err == nil {
			t.Errorf("%q became %q", params, b)
		}
	}
	b, err := AppendStartup(nil, []Param{{"user", "bob"}, {"database", "d"}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := ReadPacket(bytes.NewReader(b))
	if err != nil || p.Code != Version30 || string(p.Body) != "user\x00bob\x00database\x00d\x00\x00" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestNegotiate(t *testing.T) {
	tests := []struct {
		name    string
		asked   uint32
		options string
		version uint32
		tell    bool
		ok      bool
	}{
		{"3.0", Version30, "", Version30, false, true},
		{"3.2", Version32, "", Version32, false, true},
		{"a later 3", 3<<16 | 9999, "", Version32, true, true},
		{"an option that is not known", Version30, "_pq_.foo", Version30, true, true},
		{"2.0", 2 << 16, "", 0, false, false},
		{"4.0", 4 << 16, "", 0, false, false},
	}
	for _, test := range tests {
		params := []Param{{"user", "bob"}}
		if test.options != "" {
			params = append(params, Param{test.options, "1"})
		}
		version, unknown, tell, ok := Negotiate(test.asked, params)
		if version != test.version || tell != test.tell || ok != test.ok || (len(unknown) == 1) != (test.options != "") {
			t.Errorf("%s: got %x, %v, %v, %v", test.name, version, unknown, tell, ok)
		}
	}
	got := AppendNegotiate(nil, Version32, []string{"_pq_.a"})
	if string(got) != "v\x00\x00\x00\x13\x00\x03\x00\x02\x00\x00\x00\x01_pq_.a\x00" {
		t.Errorf("got %q", got)
	}
}

func TestCancel(t *testing.T) {
	for _, size := range []int{4, 32, 256} {
		b := AppendCancel(nil, Cancel{PID: 42, Key: bytes.Repeat([]byte{7}, size)})
		p, err := ReadPacket(bytes.NewReader(b))
		if err != nil || p.Code != CancelCode {
			t.Fatal(err)
		}
		if c, err := p.Cancel(); err != nil || c.PID != 42 || len(c.Key) != size {
			t.Errorf("%d: got %v, %v", size, c, err)
		}
	}
	for _, size := range []int{0, 3, 257} {
		if _, err := (Packet{Body: make([]byte, 4+size)}).Cancel(); err == nil {
			t.Errorf("a key of %d bytes was taken", size)
		}
	}
	if _, err := (Packet{Body: []byte{1}}).Cancel(); err == nil {
		t.Error("a request without a process id was taken")
	}
}

func TestOptions(t *testing.T) {
	tests := []struct {
		options string
		want    []Param
		ok      bool
	}{
		{"", nil, true},
		{"  ", nil, true},
		{"-c a=b", []Param{{"a", "b"}}, true},
		{"-ca=b", []Param{{"a", "b"}}, true},
		{"--a-b=c-d", []Param{{"a_b", "c-d"}}, true},
		{`-c a=b\ c -c d=\\`, []Param{{"a", "b c"}, {"d", `\`}}, true},
		{"-c a=b=c", []Param{{"a", "b=c"}}, true},
		{"-c a=", []Param{{"a", ""}}, true},
		{"\t-c\na=b\v", []Param{{"a", "b"}}, true},
		{`-c a=b\`, []Param{{"a", "b"}}, true},
		{"-c", nil, false},
		{"-c a", nil, false},
		{"-c =x", nil, false},
		{"-c=", nil, false},
		{"--", nil, false},
		{"-f s", nil, false},
		{"-W 5", nil, false},
		{"a=b", nil, false},
		{strings.Repeat("-", 9000), nil, false},
	}
	for _, test := range tests {
		got, err := Options(test.options)
		if (err == nil) != test.ok || test.ok && !slices.Equal(got, test.want) {
			t.Errorf("%.40q: got %v, %v", test.options, got, err)
		}
	}
}

func FuzzStartup(f *testing.F) {
	f.Add(packet(Version30, "user\x00bob\x00options\x00-c a=b\\ c\x00\x00"))
	f.Add(packet(CancelCode, "\x00\x00\x00\x01abcd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ReadPacket(bytes.NewReader(b))
		if err != nil {
			return
		}
		_, _ = p.Cancel()
		params, err := p.Params()
		if err != nil {
			return
		}
		for _, p := range params {
			_, _ = Options(p.Value)
		}
		again, err := AppendStartup(nil, params)
		if err == nil && !bytes.Equal(again[8:], p.Body) {
			t.Fatalf("%q came back as %q", p.Body, again[8:])
		}
	})
}
