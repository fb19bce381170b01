"""An MES that receives the reports of orinspect stations; see README.md."""
