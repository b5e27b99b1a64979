import json,subprocess
class Netlink:
    def __init__(s,timeout=1): pass
    def __enter__(s): return s
    def __exit__(s,*a): pass
    def _r(s,*a):
        o=json.loads(subprocess.run(("ip","-j","-d",*a),capture_output=True).stdout or b"[]")
        return ("[\n"+",\n".join(json.dumps(x) for x in o)+"\n]").encode()
    def links(s): return s._r("addr")
    def routes(s): return s._r("route","show","table","all")
    def rules(s): return s._r("rule")
    def neighbours(s): return s._r("neigh")
