# What the PushT recipes record, and how: sourced by them.

# Every skill and every flaw, failures included: a world that saw only experts cannot imagine a mistake.
mix="[{policy:scripted_pusht,policy_kwargs:{skill:[1.0,0.9,0.8,0.6,0.4,0.2,0.0]},share:6},
      {policy:scripted_pusht,flaws:{offset:[[-2,1],[3,0],[1,-3],[-1,-2],[2,2],[0,3]]}},
      {policy:scripted_pusht,flaws:{delay:[1,0,3,0,5],slow:[1.0,0.6,1.0,0.3,1.0]}},
      {policy:scripted_pusht,flaws:{noise:[5,15,30]}},
      {policy:random_walk,policy_kwargs:{speed:[0.03,0.06]}}]"
record() {
    scd-record env=pusht max_steps=150 task="Push the T onto the goal" "mix=${mix//[[:space:]]/}" "$@"  # on one line
}
# Numbers alone, many times as fast: for the body (body.more).
record_blind() {
    record env_kwargs={draw:false} publish_every=500 "$@"
}
