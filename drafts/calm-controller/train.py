import sys, json, time
sys.path.insert(0,'scripts')
import numpy as np, torch, math
import ant_controller as ac
from dataclasses import replace
from mbta_helpers.ants import *
torch.set_num_threads(1); torch.set_flush_denormal(True)
spec=json.loads(sys.argv[1]); out=Path(sys.argv[2]); out.mkdir(parents=True,exist_ok=True)
ac.PUSH_EVERY=spec.get('push_every',100)
if 'high' in spec: ac.HIGH=spec['high']
if 'gamma' in spec: ac.SAC_CONFIG=replace(ac.SAC_CONFIG,gamma=spec['gamma'])
if 'effort' in spec:
    old=ac.reward
    def rew(stage,speed,actions,states,fallen): return old(stage,speed,actions,states,fallen)-ac.REWARD_SCALE*(spec['effort']-0.05)*np.square(actions).sum(1)
    ac.reward=rew
if 'bounce' in spec:
    old2=ac.reward
    def rew2(stage,speed,actions,states,fallen): return old2(stage,speed,actions,states,fallen)-ac.REWARD_SCALE*spec['bounce']*np.square(states[:,17])
    ac.reward=rew2
stages=tuple(ac.Stage(**{**s,'noises':tuple(s.get('noises',(0.,.1,.2)))}) for s in spec['stages'])
T=ac.Training(spec.get('seed',0),stages)
if 'maze' in spec:
    m=spec['maze']; T.courses=[ac.Course(ac.ANTS-m,False,ac.HOLD_SHARE,T.rng),ac.Course(m,True,ac.HOLD_SHARE,T.rng)]
    def _push(stage):
        kicks = stage.push * T.rng.standard_normal((ac.ANTS, 6)); kicks *= T.rng.random((ac.ANTS, 1)) < 1 / ac.PUSH_EVERY
        f=len(T.courses[0].ants)
        for course, part in zip(T.courses, (kicks[:f], kicks[f:])): course.ants.push(part)
    T._push=_push
    T.walkers.forget(); T.seen=T.look(T.states())

if spec.get('init'):
    c=load_controller(Path(spec['init']) if spec['init']!='ship' else CONTROLLER)
    sd=T.agent.actor.state_dict()
    for k,v in c.state_dict().items():
        if k.startswith('layers.4'):
            sd[k][:8]=v; sd[k][8:]=0
            if k.endswith('bias'): sd[k][8:]=-1.5
        else: sd[k]=v
    T.agent.actor.load_state_dict(sd)
    with torch.no_grad(): T.agent.log_temperature.fill_(math.log(0.003))
    ac.RANDOM_STEPS=2000
    T.steps=0
    orig=T.agent._update_actor
    T.agent._update_actor=lambda obs: orig(obs) if T.steps>spec.get('warm',20000) else {}
    class R: pass
    # no random actions with init
    act=T.agent.act
    T.rng_uniform=None
    step=T.step
    def step2():
        return step()
    ac.RANDOM_STEPS=0
    T.replay=None
if spec.get('resume'):
    ck=ac.load_checkpoint(Path(spec['resume'])/ac.STATE,'ant training'); t=ck.tensors
    for n,m in T._modules().items(): m.load_state_dict(ac._below(t,n))
    with torch.no_grad(): T.agent.log_temperature.copy_(t['temperature'])
    ac.RANDOM_STEPS=0
if spec.get('through'):
    def look(states):
        f=len(T.courses[0].ants); tg=np.concatenate([c.targets for c in T.courses])
        c=T.courses[1]; b=beyond(states[f:],c.targets); hold=(c.hold>0)
        tg[f:]=np.where(hold[:,None],tg[f:],b)
        return T.walkers.look(states,tg)
    T.look=look
if spec.get('risky'):
    from collections import deque
    share=spec['risky']; ac.EPISODE=spec.get('episode',150)
    T.age=T.rng.integers(0,ac.EPISODE,ac.ANTS)
    hist=deque(maxlen=31); bank=[deque(maxlen=1000),deque(maxlen=1000)]
    om=T._move; orr=T._restart; cnt=dict(r=0)
    def move(applied):
        r=om(applied); hist.append(r[0].copy()); return r
    def restart(fallen,stage):
        for i in np.flatnonzero(fallen):
            lag=int(T.rng.integers(8,30))
            if T.age[i]>lag+1 and len(hist)>lag: bank[0 if i<len(T.courses[0].ants) else 1].append(hist[-1-lag][i])
        orr(fallen,stage)
    for k,course in enumerate(T.courses):
        def begin(index,course=course,ob=course.begin,k=k):
            ob(index)
            if len(bank[k])>20 and T.rng.random()<share:
                st=bank[k][T.rng.integers(len(bank[k]))]
                course.ants.place(index,st); course.routes[index].clear(); course.choose(index,st[:2])
        course.begin=begin
    T._move=move; T._restart=restart
try:
    rs=ac.RANDOM_STEPS
    # learn only after some rows are there
    real=T.learn
    T.learn=lambda rate: real(rate) if T.replay.added>=10000 else {}
    T.run(out)
finally:
    T.save(out)
    ac.save_checkpoint(out/'model.safetensors',ac.KIND,T.controller().state_dict(),{'hidden':128},{'spec':spec})
