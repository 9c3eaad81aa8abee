#include "trainer/timing/recordings.h"

namespace qstep::trainer {

void Recordings::run_again(Part& part, const ops::Moment& moment) {
  const int64_t now_ns = Timeline::now_ns();
  const int64_t first_mark = part.recording->run(moment);
  timeline_.handed_over_before({.first_mark = first_mark, .at_ns = now_ns});
  part.tape.play(timeline_);
  timeline_.handed_over_before({});
}

}  // namespace qstep::trainer
