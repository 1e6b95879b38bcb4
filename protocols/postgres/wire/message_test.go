package wire

import "testing"

func TestDecodeErrorChecksFirst(t *testing.T) {
	e, err := DecodeError([]byte("SFATAL\x00VFATAL\x00C28000\x00Mno\x00\x00"))
	if err != nil || e.Code != "28000" || e.Message != "no" {
		t.Fatalf("got %+v, %v", e, err)
	}
	for _, body := range []string{"", "S", "SFATAL", "SFATAL\x00", "SFATAL\x00\x00x"} {
		if _, err := DecodeError([]byte(body)); err == nil {
			t.Errorf("%q was taken", body)
		}
	}
}

func TestDecodeRow(t *testing.T) {
	row, err := DecodeRow([]byte("\x00\x03\x00\x00\x00\x02ab\xff\xff\xff\xff\x00\x00\x00\x00"))
	if err != nil || len(row) != 3 || string(row[0]) != "ab" || row[1] != nil || row[2] == nil {
		t.Fatalf("got %q, %v", row, err)
	}
	for _, body := range []string{"", "\x00", "\x00\x01", "\xff\xff\x00\x00\x00\x00", "\x00\x01\xff\xff\xff\xfe", "\x00\x01\x00\x00\x00\x02a", "\x00\x00x"} {
		if _, err := DecodeRow([]byte(body)); err == nil {
			t.Errorf("%q was taken", body)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte("SFATAL\x00C28000\x00\x00"))
	f.Add([]byte("\x00\x01\x00\x00\x00\x02ab"))
	f.Fuzz(func(_ *testing.T, body []byte) {
		_, _ = DecodeError(body)
		_, _ = DecodeRow(body)
		_, _, _ = DecodeParameterStatus(body)
		_, _ = KeyData(body)
	})
}
