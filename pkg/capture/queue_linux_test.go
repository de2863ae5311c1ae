package capture

import "testing"

func TestQueue(t *testing.T) {
	wanted, got, err := Queue()
	if err != nil || wanted != rcvbuf || got <= 0 || got > wanted {
		t.Errorf("%d of %d, %v", got, wanted, err)
	}
}
