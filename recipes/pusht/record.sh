# What the PushT recipes record, and how: sourced by them.

# Every skill and every degradation, failures included: a world trained on experts alone cannot imagine a mistake.
policy_mixture="[{policy:scripted_pusht,policy_kwargs:{skill:[1.0,0.9,0.8,0.6,0.4,0.2,0.0]},weight:6},
      {policy:scripted_pusht,degrade:{offset:[[-2,1],[3,0],[1,-3],[-1,-2],[2,2],[0,3]]}},
      {policy:scripted_pusht,degrade:{delay:[1,0,3,0,5],slow:[1.0,0.6,1.0,0.3,1.0]}},
      {policy:scripted_pusht,degrade:{noise:[5,15,30]}},
      {policy:random_walk,policy_kwargs:{speed:[0.03,0.06]}}]"
record() {
    # The list goes on one line.
    scd-record env=pusht max_steps=150 task="Push the T onto the goal" \
        "policy_mixture=${policy_mixture//[[:space:]]/}" "$@"
}
# Without images, many times as fast: for the state prior (prior.extra_datasets).
record_blind() {
    record env_kwargs={render_images:false} publish_every=500 "$@"
}
