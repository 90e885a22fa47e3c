// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"testing"
)

func TestToken(t *testing.T) {
	for _, good := range []string{"0000000000000001", "0123456789abcdef", "ffffffffffffffff"} {
		if tok, err := ParseToken(good); err != nil || tok.String() != good {
			t.Errorf("%s: %v, %v", good, tok, err)
		}
	}
	for _, bad := range []string{
		"", "0", "0000000000000000", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "0x23456789abcdef",
		"+123456789abcdef", "0123456789abcdeg", "0123_56789abcdef",
	} {
		if tok, err := ParseToken(bad); err == nil {
			t.Errorf("%q is %v", bad, tok)
		}
	}
}

func TestNewTokenIsNotZero(t *testing.T) {
	a, b := newToken(), newToken()
	if a == 0 || a == b {
		t.Errorf("%v and %v", a, b)
	}
}

// The two fields are the bytes 28 and 29 on every host, and no operation on one touches the other.
func TestWaitWord(t *testing.T) {
	mapping := make([]byte, 64)
	w := waitWord{word32(mapping, 28)}
	w.set(Reader, OnFutex)
	w.set(Writer, OnBell)
	if mapping[28] != byte(OnFutex) || mapping[29] != byte(OnBell) || mapping[30] != 0 || mapping[31] != 0 {
		t.Fatalf("bytes % x", mapping[28:32])
	}
	if w.get(Reader) != OnFutex || w.get(Writer) != OnBell {
		t.Fatalf("reader %d, writer %d", w.get(Reader), w.get(Writer))
	}
	if w.clear(Reader, OnBell) {
		t.Error("cleared from what it was not")
	}
	if !w.clear(Reader, OnFutex) || w.clear(Reader, OnFutex) {
		t.Error("not cleared once")
	}
	if w.get(Reader) != Awake || w.get(Writer) != OnBell {
		t.Errorf("reader %d, writer %d", w.get(Reader), w.get(Writer))
	}
}

func TestSizedCounters(t *testing.T) {
	for _, test := range []struct{ size, bucket int }{
		{1, 0}, {8 << 10, 0}, {8<<10 + 1, 1}, {16 << 10, 1}, {64 << 10, 3}, {512 << 10, 6}, {1 << 20, 7}, {1<<20 + 1, 8}, {1 << 30, 8},
	} {
		if got := UsrTxBuf.Sized(test.size); got != UsrTxBuf+Counter(test.bucket) {
			t.Errorf("%d bytes count in %d, want %d", test.size, got-UsrTxBuf, test.bucket)
		}
	}
}

// The numbers of docs/dmb-format.md 3.2.
func TestCounterNumbers(t *testing.T) {
	for c, want := range map[Counter]int{
		IntTxBuf: 0, IntRxBuf: 9, UsrTxBuf: 18, UsrRxBuf: 27, TxSizeSmallPeer: 36, TxDowngrade: 42, RxSizeSmallPeer: 43,
		RxDowngrade: 49, ClientV1: 50, ServerV2: 53, SendPage: 54, NoDelay: 58, RxBytes: 59, TxBytes: 60, RxCount: 61,
		TxCount: 62, RxUsage: 63, TxUsage: 64,
	} {
		if int(c) != want {
			t.Errorf("counter %d should be %d", c, want)
		}
	}
}
