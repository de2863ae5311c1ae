package wire

import (
	"math"
	"testing"
)

// chiSquare sums (seen-expected)²/expected.
func chiSquare(seen []int, expected float64) (x float64) {
	for _, n := range seen {
		d := float64(n) - expected
		x += d * d / expected
	}
	return x
}

// testUniform asks whether samples of equal length look like random bytes at every
// position: no bit leans to one side, the values of a byte are spread evenly, and
// neighbours tell nothing of each other. The samples are the same in every run, and the
// bounds are seven standard deviations away, so that it fails only if something is wrong.
func testUniform(t *testing.T, samples [][]byte) {
	n := float64(len(samples))
	const chiBound = 255 + 7*22.6 // 255 degrees of freedom: mean 255, deviation √510
	for at := range samples[0] {
		var values, steps [256]int
		var ones [8]int
		for _, s := range samples {
			values[s[at]]++
			steps[s[at]^s[(at+1)%len(s)]]++
			for bit := range 8 {
				ones[bit] += int(s[at] >> bit & 1)
			}
		}
		if x := chiSquare(values[:], n/256); x > chiBound {
			t.Errorf("byte %d: chi-square %.0f, bound %.0f", at, x, chiBound)
		}
		if x := chiSquare(steps[:], n/256); x > chiBound {
			t.Errorf("bytes %d and next: chi-square %.0f, bound %.0f", at, x, chiBound)
		}
		for bit, k := range ones {
			if d := math.Abs(float64(k)-n/2) / (math.Sqrt(n) / 2); d > 7 {
				t.Errorf("byte %d bit %d: %d of %.0f set, %.1f deviations off", at, bit, k, n, d)
			}
		}
	}
}

// TestLooksRandom seals the same message again and again: only E differs.
func TestLooksRandom(t *testing.T) {
	const n = 4096
	s, o, rand := NewSealer(testRouter().Public()), NewOpener(testRouter()), testRand(9)
	packets, answers := make([][]byte, n), make([][]byte, n)
	for i := range n {
		p, _, err := s.Seal(goodMessage(), testDevice(), rand)
		if err != nil {
			t.Fatal(err)
		}
		packets[i] = p[:]
		opened, err := o.Open(p[:])
		if err != nil {
			t.Fatal(err)
		}
		a, err := opened.Answer(goodAnswer(), rand)
		if err != nil {
			t.Fatal(err)
		}
		answers[i] = a[:]
	}
	t.Run("packets", func(t *testing.T) { testUniform(t, packets) })
	t.Run("answers", func(t *testing.T) { testUniform(t, answers) })
}
